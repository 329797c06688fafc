"""The actor's class: encoded images in, label rows out."""

from __future__ import annotations

import gc
import io
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from model.choices import find_ranking
from model.images.preprocessing import ImagePreprocessor
from model.images.views import cut_batches
from model.part_clock import PartClock
from model.ranking import Label, RankedLabels
from pipeline.actor.decoding import DecodedImage, decode
from pipeline.actor.device_metrics import DeviceMetrics
from pipeline.actor.found_views import FoundViews, join_found
from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.actor.rows import LABELLED_ROWS
from pipeline.errors import ClusterError
from pipeline.naming.name_list import NameList
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.batches import BATCHES
from schemas import content_hash
from tests.fixtures.corpus import encode, jpeg
from tests.fixtures.recognizers.ranked import ranked
from tests.fixtures.stored.lists import name_list

PROB = find_ranking("prob")
CONFIG = LabelerConfig(
    model="none",
    top_k=3,
    ranking="prob",
    sampling="one_shot",
    max_label_tokens=4,
    honour_exif=True,
    dtype="float32",
    device="cpu",
    n_threads=2,
)


@dataclass
class StubRecognizer:
    """Labels an image by the shade of its upper left corner; every third branch is unfinished."""

    preprocessor: ImagePreprocessor = field(default_factory=lambda: ImagePreprocessor(image_size=8))
    asked: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    why_copied: str | None = None
    prepared_in: set[str] = field(default_factory=set)

    def prepare(self, crops: Sequence[np.ndarray]) -> list[int]:
        self.prepared_in.add(threading.current_thread().name)
        return [int(crop[0, 0, 0]) for crop in crops]

    def sample(self, pixel_values: list[int], top_k: int, **options: Any) -> list[int]:
        self.threads.add(threading.current_thread().name)
        self.asked.append((len(pixel_values), {"top_k": top_k, **options}))
        return pixel_values

    def rank_batch(self, sampled: list[int], ranking: str) -> RankedLabels:
        return ranked(
            [
                [
                    Label(f"shade {shade}", 0.5, (1, 2), (0.75, 0.5), True),
                    Label(f"again {shade}", 0.25, (3, 4, 2), (0.5, 0.5, 0.5), True),
                    Label("endless", 0.1, (5,), (0.1,), False),
                ]
                for shade in sampled
            ]
        )


class StubLabeler(Labeler):
    @staticmethod
    def load_recognizer(config: LabelerConfig) -> Any:
        return StubRecognizer()


@pytest.fixture
def labeler() -> StubLabeler:
    return StubLabeler(CONFIG)


def shade(value: int) -> bytes:
    """An image of one shade, encoded without loss."""
    return encode(Image.new("RGB", (12, 9), (value, value, value)), "PNG")


def batch(*data: bytes | None, shard: str = "s", first_index: int = 0, **changed: Any) -> pa.Table:
    """One batch as the data source makes it."""
    samples = [
        {
            "key": f"k{first_index + place}",
            "data": content,
            "caption": f"caption {place}",
            "truth": ["cat"] if place % 2 else None,
            "error": None if content is not None else "NoImage",
            "message": None if content is not None else "the sample holds no image",
        }
        for place, content in enumerate(data)
    ]
    row = {"shard": shard, "first_index": first_index, "samples": samples, "read_s": 0.5, **changed}
    return pa.Table.from_pylist([row], schema=BATCHES)


def texts(rows: pa.Table) -> list[list[str]]:
    return [[label["label"] for label in labels] for labels in rows["labels"].to_pylist()]


class TestRows:
    """What becomes of a batch."""

    def test_every_sample_is_one_row_with_the_labels_of_its_image(self, labeler: StubLabeler) -> None:
        rows = labeler(batch(shade(10), shade(20), first_index=7))
        assert rows.schema == LABELLED_ROWS
        assert (rows["index"].to_pylist(), rows["key"].to_pylist()) == ([7, 8], ["k7", "k8"])
        assert texts(rows) == [["shade 10", "again 10"], ["shade 20", "again 20"]]

    def test_a_row_tells_of_its_image(self, labeler: StubLabeler) -> None:
        (row,) = labeler(batch(shade(10), shard="a/0")).to_pylist()
        told = {name: row[name] for name in ("shard", "status", "stage", "error", "message", "width", "height")}
        assert told == {
            "shard": "a/0",
            "status": "labelled",
            "stage": None,
            "error": None,
            "message": None,
            "width": 12,
            "height": 9,
        }
        assert (row["n_bytes"], row["content_hash"]) == (len(shade(10)), content_hash(shade(10)))

    def test_a_label_comes_with_score_first_probability_and_length(self, labeler: StubLabeler) -> None:
        (row,) = labeler(batch(shade(10))).to_pylist()
        assert row["labels"] == [
            {"label": "shade 10", "score": 0.5, "first_token_prob": 0.75, "n_tokens": 2, "view": 0},
            {"label": "again 10", "score": 0.25, "first_token_prob": 0.5, "n_tokens": 3, "view": 0},
        ]

    def test_unfinished_branches_are_counted_and_left_out(self, labeler: StubLabeler) -> None:
        assert labeler(batch(shade(10), None))["n_unfinished"].to_pylist() == [1, 0]

    def test_captions_and_given_labels_come_along(self, labeler: StubLabeler) -> None:
        rows = labeler(batch(shade(1), shade(2)))
        assert (rows["caption"].to_pylist(), rows["truth"].to_pylist()) == (["caption 0", "caption 1"], [None, ["cat"]])

    def test_the_recognizer_is_asked_as_configured_and_for_the_readable_images_alone(self) -> None:
        labeler = StubLabeler(replace(CONFIG, image_tokens=9))
        labeler(batch(shade(1), None, b"no image", shade(2)))
        ((n_images, options),) = labeler.recognizer.asked
        assert isinstance(options.pop("clock"), PartClock)
        asked = {"top_k": 3, "sampling": "one_shot", "max_label_tokens": 4, "image_tokens": 9, "names": []}
        assert (n_images, options) == (2, asked)

    def test_several_batches_of_different_shards_keep_apart(self, labeler: StubLabeler) -> None:
        batches = pa.concat_tables(
            [batch(shade(1), None, shard="a"), batch(shade(2), shard="b", first_index=5), batch(shade(3), shade(4))]
        ).combine_chunks()
        rows = labeler(batches)
        assert list(zip(rows["shard"].to_pylist(), rows["index"].to_pylist(), strict=True)) == [
            ("a", 0),
            ("a", 1),
            ("b", 5),
            ("s", 0),
            ("s", 1),
        ]
        assert [labels[:1] for labels in texts(rows)] == [["shade 1"], [], ["shade 2"], ["shade 3"], ["shade 4"]]

    def test_the_last_row_of_a_shards_last_batch_tells_of_the_whole(self, labeler: StubLabeler) -> None:
        rows = labeler(batch(shade(1), shade(2), n_samples=9, source_size=100, source_etag="v1"))
        told = [(row["n_samples"], row["source_size"], row["source_etag"]) for row in rows.to_pylist()]
        assert told == [(None, None, None), (9, 100, "v1")]

    def test_the_seconds_of_a_batch_count_once(self, labeler: StubLabeler) -> None:
        rows = labeler(batch(shade(1), shade(2), shade(3)))
        assert rows["read_s"].to_pylist() == [0.5, 0.0, 0.0]
        assert rows["decode_s"].to_pylist()[1:] == rows["infer_s"].to_pylist()[1:] == [0.0, 0.0]
        assert rows["decode_s"][0].as_py() > 0


class TestFaults:
    """Samples that cannot be labelled."""

    def test_an_image_that_cannot_be_decoded_is_one_rejected_row_with_the_reason(self, labeler: StubLabeler) -> None:
        rows = labeler(batch(shade(1), b"<html>404</html>", shade(2))).to_pylist()
        assert [row["status"] for row in rows] == ["labelled", "rejected", "labelled"]
        assert (rows[1]["stage"], rows[1]["error"], rows[1]["labels"]) == ("decode", "ImageUnreadable", [])
        assert "b'<html>404</html>'" in rows[1]["message"]
        assert (rows[1]["n_bytes"], rows[1]["content_hash"]) == (16, content_hash(b"<html>404</html>"))

    def test_a_cut_image_has_the_size_its_header_tells(self, labeler: StubLabeler) -> None:
        cut = jpeg(0)[:800]
        (row,) = labeler(batch(cut)).to_pylist()
        assert (row["status"], row["width"], row["height"]) == ("rejected", 96, 72)

    def test_a_sample_that_could_not_be_read_is_one_rejected_row(self, labeler: StubLabeler) -> None:
        (row,) = labeler(batch(None)).to_pylist()
        assert [row[name] for name in ("status", "stage", "error", "message")] == [
            "rejected",
            "read",
            "NoImage",
            "the sample holds no image",
        ]
        assert [row[name] for name in ("n_bytes", "content_hash", "width", "height")] == [None] * 4

    def test_a_warning_of_the_reader_stays_on_the_labelled_row(self, labeler: StubLabeler) -> None:
        sample = {"key": "k", "data": shade(1), "error": "SideFileUnreadable", "message": "no json"}
        (row,) = labeler(_with_sample(sample)).to_pylist()
        assert [row[name] for name in ("status", "stage", "error", "message")] == [
            "labelled",
            "read",
            "SideFileUnreadable",
            "no json",
        ]

    def test_an_unreadable_image_outweighs_a_warning_of_the_reader(self, labeler: StubLabeler) -> None:
        sample = {"key": "k", "data": b"no image", "error": "SideFileUnreadable", "message": "no json"}
        (row,) = labeler(_with_sample(sample)).to_pylist()
        assert (row["stage"], row["error"]) == ("decode", "ImageUnreadable")

    @pytest.mark.parametrize("data", [(None,), (b"no image", b""), (None, b"no image", None)])
    def test_a_batch_without_a_readable_image_has_rows_and_no_labels(
        self, labeler: StubLabeler, data: tuple[bytes | None, ...]
    ) -> None:
        rows = labeler(batch(*data))
        assert (rows.schema, rows["status"].to_pylist()) == (LABELLED_ROWS, ["rejected"] * len(data))
        assert texts(rows) == [[]] * len(data)

    def test_an_image_over_the_limit_of_pixels_is_one_rejected_row_that_names_the_setting(self) -> None:
        rows = StubLabeler(replace(CONFIG, max_image_pixels=107))(batch(shade(1), jpeg(0, 12, 8))).to_pylist()
        assert [row["status"] for row in rows] == ["rejected", "labelled"]
        assert [rows[0][name] for name in ("stage", "error", "width", "height")] == ["decode", "ImageTooLarge", 12, 9]
        assert rows[0]["message"] == "12 x 9 pixels are 108; the limit is 107 (setting max_image_pixels)"

    def test_an_image_that_takes_too_long_is_one_rejected_row_that_names_the_setting(self, clock: Any) -> None:
        class SlowLabeler(StubLabeler):
            def _decode(self, data: bytes | None) -> DecodedImage:
                if data == b"slow":
                    # For the others no time goes by: one thread decodes one after the other.
                    clock.now += 0.25
                    release.wait(60)
                return super()._decode(data)

        release, labeler = threading.Event(), SlowLabeler(replace(CONFIG, n_threads=1, max_sample_s=0.25))
        rows = labeler(batch(shade(1), b"slow", shade(2))).to_pylist()
        release.set()
        assert [row["status"] for row in rows] == ["labelled", "rejected", "labelled"]
        assert [rows[1][name] for name in ("stage", "error", "n_bytes", "content_hash")] == [
            "decode",
            "DecodeTimeout",
            4,
            content_hash(b"slow"),
        ]
        assert rows[1]["message"] == "decoding took longer than 0.25 s (setting max_sample_s)"

    def test_damaged_images_of_every_format_are_messages_and_never_errors(self) -> None:
        generator = random.Random(0)
        picture = Image.open(io.BytesIO(jpeg(1))).convert("RGB")
        preprocessor = ImagePreprocessor(image_size=8)
        n_unreadable = 0
        for image_format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
            whole = encode(picture, image_format)
            for _ in range(40):
                damaged = bytearray(whole)
                for _ in range(generator.choice([1, 4, 20])):
                    damaged[generator.randrange(generator.choice([40, len(whole)]))] = generator.randrange(256)
                image = decode(bytes(damaged[: generator.choice([len(whole), len(whole) // 2])]), preprocessor)
                assert (not image.views) == (image.message is not None)
                n_unreadable += not image.views
        assert 50 < n_unreadable < 235


def test_limits_of_a_sample_and_image_tokens_are_those_of_the_settings() -> None:
    settings = LabelSettings(max_image_pixels=1000, max_sample_s=2.5, image_tokens=9)
    config = LabelerConfig.of("model", settings, dtype="float32", device="cpu", n_threads=1)
    assert (config.max_image_pixels, config.max_sample_s, config.image_tokens) == (1000, 2.5, 9)


def test_every_row_tells_why_branches_copy_their_images_tokens(labeler: StubLabeler) -> None:
    shared = labeler(batch(shade(1), shade(2))).column("why_copied").to_pylist()
    labeler.recognizer.why_copied = "a reason"
    copied = labeler(batch(shade(1), shade(2))).column("why_copied").to_pylist()
    assert (shared, copied) == ([None, None], ["a reason", "a reason"])


def test_names_of_a_list_alone_are_scored_over_as_many_image_tokens_as_configured() -> None:
    class Scoring(StubRecognizer):
        def list_names(self, spellings: list[Any], batch_size: int) -> None: ...

        def score_prepared(self, prepared: list[int], names: list[Any], **options: Any) -> list[np.ndarray]:
            self.asked.append((len(prepared), options))
            return [np.zeros((len(prepared), 1), np.float32)]

    class ScoringLabeler(Labeler):
        @staticmethod
        def load_recognizer(config: LabelerConfig) -> Any:
            return Scoring()

    names = NameList(title="animals", names={"cat": ("cat",)})
    labeler = ScoringLabeler(replace(CONFIG, image_tokens=9, lists=(names,), samples_labels=False))
    labeler(batch(shade(1), shade(2)))
    ((n_images, options),) = labeler.recognizer.asked
    assert (n_images, options["image_tokens"]) == (2, 9)


def _with_sample(sample: dict[str, Any]) -> pa.Table:
    row = {"shard": "s", "first_index": 0, "samples": [sample], "read_s": 0.0}
    return pa.Table.from_pylist([row], schema=BATCHES)


def test_an_image_of_one_colour_is_marked() -> None:
    picture = encode(Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert("RGB"), "PNG")
    table = StubLabeler(CONFIG)(batch(shade(10), picture, b"damaged", None))
    assert table["flat"].to_pylist() == [True, False, None, None]


@pytest.mark.parametrize(("rule", "corner"), [(1, 0), (2, 15)])
def test_pixels_are_seen_by_the_rule_that_is_set(rule: int, corner: int) -> None:
    dark = Image.fromarray((np.arange(64, dtype=np.uint16).reshape(8, 8) * 16 + 60).clip(0, 1023))
    (labels,) = StubLabeler(replace(CONFIG, pixel_rule=rule))(batch(encode(dark, "PNG")))["labels"].to_pylist()
    assert labels[0]["label"] == f"shade {corner}"


@pytest.mark.parametrize(("honour_exif", "corner"), [(True, 250), (False, 0)])
def test_photographs_are_turned_upright_where_that_is_set(honour_exif: bool, corner: int) -> None:
    # Black above white; orientation 3 turns it by half a circle.
    picture = Image.new("RGB", (16, 16))
    picture.paste((255, 255, 255), (0, 8, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 3
    labeler = StubLabeler(replace(CONFIG, honour_exif=honour_exif))
    (row,) = labeler(batch(encode(picture, "PNG", exif=exif))).to_pylist()
    assert abs(int(row["labels"][0]["label"].split()[1]) - corner) <= 5


class TestViews:
    """Images of which several squares are labelled."""

    CONFIG = replace(CONFIG, top_k=4, views=4, batch_size=3)

    @staticmethod
    def label(*data: bytes, config: LabelerConfig = CONFIG) -> tuple[StubLabeler, list[dict[str, Any]]]:
        labeler = StubLabeler(config)
        return labeler, labeler(batch(*data)).to_pylist()

    def test_a_wide_image_has_the_labels_of_all_its_squares(self) -> None:
        _, (row,) = self.label(stripe(10, 20))
        assert [(label["label"], label["view"]) for label in row["labels"]] == [
            ("shade 10", 0),
            ("shade 20", 1),
            ("again 10", 0),
            ("again 20", 1),
        ]
        assert (row["status"], row["width"], row["height"], row["n_unfinished"]) == ("labelled", 16, 8, 2)

    def test_where_the_centre_alone_is_seen_nothing_is_asked_otherwise_than_before(self) -> None:
        labeler, rows = self.label(stripe(10, 20, 30), shade(40), config=replace(self.CONFIG, views=1, batch_size=1))
        assert [row["labels"][0]["label"] for row in rows] == ["shade 20", "shade 40"]
        assert [(n_images, options["top_k"]) for n_images, options in labeler.recognizer.asked] == [(2, 4)]

    def test_squares_of_an_image_share_its_branches_and_batches_of_the_device_are_bounded(self) -> None:
        images = [stripe(10, 20), stripe(30), stripe(40, 50), stripe(60, 70), stripe(1, 2, 3, 4)]
        labeler, rows = self.label(*images)
        asked = [(n_images, options["top_k"]) for n_images, options in labeler.recognizer.asked]
        # One square with 4 branches, six with 2, four with 1. A batch of five images has five squares at most.
        assert asked == [(1, 4), (5, 2), (1, 2), (4, 1)]
        assert [{label["label"].split()[1] for label in row["labels"]} for row in rows] == [
            {"10", "20"},
            {"30"},
            {"40", "50"},
            {"60", "70"},
            {"1", "2", "3", "4"},
        ]

    def test_fewer_tokens_are_read_of_squares_where_an_image_has_several(self) -> None:
        labeler, _ = self.label(stripe(10, 20), stripe(30), config=replace(self.CONFIG, view_tokens=9))
        asked = [(n_images, options["image_tokens"]) for n_images, options in labeler.recognizer.asked]
        assert asked == [(1, 0), (2, 9)]

    def test_what_is_labelled_together_depends_on_the_batch_alone(self) -> None:
        batches = [batch(stripe(10, 20), stripe(30)), batch(stripe(40, 50), b"damaged", stripe(60, 70), first_index=2)]
        together, apart = StubLabeler(self.CONFIG), StubLabeler(self.CONFIG)
        rows = together(pa.concat_tables(batches).combine_chunks())
        assert texts(rows) == [of_image for one in batches for of_image in texts(apart(one))]
        sizes = [
            [(n_images, options["top_k"]) for n_images, options in each.recognizer.asked] for each in (together, apart)
        ]
        assert sizes[0] == sizes[1] == [(1, 4), (2, 2), (3, 2), (1, 2)]

    def test_images_that_cannot_be_decoded_keep_their_places(self) -> None:
        _, rows = self.label(b"damaged", stripe(10, 20), b"", stripe(30))
        assert [[label["label"] for label in row["labels"]][:2] for row in rows] == [
            [],
            ["shade 10", "shade 20"],
            [],
            ["shade 30", "again 30"],
        ]

    def test_an_image_is_flat_where_all_its_squares_are(self) -> None:
        half = Image.fromarray(np.hstack([np.zeros((8, 8)), np.arange(64).reshape(8, 8)]).astype(np.uint8))
        _, rows = self.label(stripe(10, 20), encode(half.convert("RGB"), "PNG"))
        assert [row["flat"] for row in rows] == [True, False]

    def test_seconds_are_those_of_all_batches_of_the_device(self) -> None:
        found = join_found(
            [[(0, 0)], [(1, 0)]], [FoundViews(None, (), {"infer": 1.0, "encode": 0.5})] * 2, 2, PROB, 4, ()
        )
        assert found.seconds == {"infer": 2.0, "encode": 1.0}

    def test_a_listed_name_scores_what_the_square_that_scores_it_best_gives_it(self) -> None:
        animals = name_list("animals", "cat", "dog", top=2)
        batches = cut_batches([2, 1, 2], 3)
        scores = {(0, 0): [0.1, 0.2], (0, 1): [0.3, 0.1], (1, 0): [0.5, 0.4], (2, 0): [0.1, 0.1], (2, 1): [0.1, 0.6]}
        found = [FoundViews(None, [np.log([scores[place] for place in places])], {}) for places in batches]
        listed = join_found(batches, found, 3, PROB, 4, [animals]).listed
        assert listed.n_labels.tolist() == [2, 2, 2]
        assert [(label["label"], round(label["score"], 3)) for label in listed.labels.to_pylist()] == [
            ("cat", 0.3),
            ("dog", 0.2),
            ("cat", 0.5),
            ("dog", 0.4),
            ("dog", 0.6),
            ("cat", 0.1),
        ]


def stripe(*shades: int) -> bytes:
    """Squares of 8 px side by side, each of one shade, encoded without loss."""
    return encode(
        Image.fromarray(np.repeat([shades], 8, axis=0).repeat(8, axis=1).astype(np.uint8)).convert("RGB"), "PNG"
    )


def test_threads_that_call_at_once_get_the_rows_of_their_own_images(labeler: StubLabeler) -> None:
    def label(number: int) -> list[list[str]]:
        return texts(labeler(batch(shade(number), None, shade(number + 100))))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(label, range(100)))
    for number, labels in enumerate(found):
        expected = [[f"shade {value}", f"again {value}"] for value in (number, number + 100)]
        assert labels == [expected[0], [], expected[1]]
    # The model itself is worked on by one thread.
    assert len(labeler.recognizer.threads) == 1


def test_the_collector_does_not_look_at_what_a_jobs_actor_has_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DeviceMetrics, "start", lambda _: None)
    monkeypatch.setattr(DeviceMetrics, "__init__", lambda *_: None)
    before = gc.get_freeze_count()
    StubLabeler(CONFIG)
    assert gc.get_freeze_count() == before, "a process of the user's own was changed"
    StubLabeler(replace(CONFIG, job="2026-11-27"))
    n_frozen = gc.get_freeze_count()
    gc.unfreeze()
    assert n_frozen > before + 10_000


def test_a_cpu_that_computes_prepares_its_batches_in_turn(labeler: StubLabeler) -> None:
    labeler(batch(shade(1)))
    assert labeler.recognizer.prepared_in == labeler.recognizer.threads


def test_a_device_with_memory_of_its_own_gets_batches_that_others_prepared(labeler: StubLabeler) -> None:
    class NotedTransfers:
        def send(self, prepare: Callable[[], Any]) -> Callable[[], Any]:
            prepared = prepare()
            return lambda: prepared

    labeler._transfers = NotedTransfers()
    rows = labeler(batch(shade(1)))
    assert texts(rows) == [["shade 1", "again 1"]]
    assert labeler.recognizer.prepared_in == {threading.current_thread().name}
    assert labeler.recognizer.threads.isdisjoint(labeler.recognizer.prepared_in)


@pytest.mark.gpu
def test_on_cuda_batches_in_flight_get_the_labels_that_the_recognizer_gives_them_alone() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    labeler = Labeler(replace(CONFIG, model="demo", device="cuda", top_k=10))
    views = [np.random.default_rng(seed).integers(0, 256, (8, 56, 56, 3), dtype=np.uint8) for seed in range(40)]
    views = [[resized(image, labeler.preprocessor.image_size) for image in images] for images in views]
    with ThreadPoolExecutor(3) as callers:
        found = list(callers.map(labeler.label_single_views, views))
    recognizer = labeler.recognizer
    for images, labels in zip(views, found, strict=True):
        sampled = recognizer.sample(recognizer.prepare(images), 10, max_label_tokens=CONFIG.max_label_tokens)
        assert labels.labels.to_lists(keep_unfinished=True) == recognizer.rank(sampled, keep_unfinished=True)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size, size)))


def test_a_batch_that_does_not_fit_the_devices_memory_stops_the_job_and_names_the_setting(labeler: StubLabeler) -> None:
    class OutOfMemoryError(RuntimeError):
        """torch's has this name, too."""

    def sample(*_: Any, **__: Any) -> None:
        raise OutOfMemoryError("CUDA out of memory")

    labeler.recognizer.sample = sample
    with pytest.raises(ClusterError, match="to label 2 images of shard s at once; make batch_size or top_k smaller"):
        labeler(batch(shade(1), shade(2)))
