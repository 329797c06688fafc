"""Which image is explained, and with what settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model import Recognizer
from model.fingerprint import fingerprint_folder
from pipeline.errors import ModelError, StoreError, TagstreamError
from pipeline.explanation.subject import Subject, explain, find_file, find_image, find_strangeness
from pipeline.settings.labelling import LabelSettings
from pipeline.storage.files import open_filesystem
from pipeline.store.store import Store
from tests.fixtures.corpus import jpeg, sample_members, tar_bytes
from tests.fixtures.stored.labelled import label_source
from tests.fixtures.stored.tables import run_record

LABELLING = {
    "top_k": 7,
    "ranking": "ppl",
    "sampling": "one_shot",
    "max_label_tokens": 3,
    "honour_exif": False,
    "dtype": "float32",
}
MakeStore = Callable[..., str]


@pytest.fixture
def make_store(tmp_path: Path, tiny_model: Path) -> MakeStore:
    """A function that writes shards and labels them, as a run of the tiny model."""

    def make(shards: dict[str, list[tuple[str, bytes]]], **changed: Any) -> str:
        source = tmp_path / "shards"
        source.mkdir()
        for name, members in shards.items():
            (source / f"{name}.tar").write_bytes(tar_bytes(members))
        store = Store(str(tmp_path / "store"))
        values = {"labelling": LABELLING, "model": str(tiny_model), "model_fingerprint": fingerprint_folder(tiny_model)}
        store.create_run(run_record("r", source=str(source), source_root=str(source), **{**values, **changed}))
        label_source(store, "r", str(source))
        return store.url

    return make


def find(store: str, name: str, **options: Any) -> Subject:
    return find_image(store, options.pop("run", None), name, options.pop("model", None), options.pop("top_k", None))


class TestImagesOfARun:
    """Found by key, with the settings of the run."""

    def test_an_image_is_found_by_its_key(self, make_store: MakeStore) -> None:
        subject = find(make_store({"a": sample_members("one", 1), "b": sample_members("two", 2)}), "two")
        assert subject.data == jpeg(2)
        assert subject.address.endswith("/shards/b#two")

    def test_its_settings_are_those_of_its_run(self, make_store: MakeStore, tiny_model: Path) -> None:
        store = make_store({"a": sample_members("one", 1)})
        settings = find(store, "one").settings
        assert settings.labelling("float32") == LABELLING
        assert find(store, "one", top_k=2).settings == replace(settings, top_k=2)

    def test_its_labels_are_those_that_the_settings_give(self, make_store: MakeStore, tiny_model: Path) -> None:
        stored = jpeg(1, 80, 50)
        exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
        turned = stored[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + stored[2:]
        explanation = explain(find(make_store({"a": [("one.jpg", turned)]}), "one"))
        recognizer = Recognizer.from_pretrained(tiny_model, device="cpu")
        (expected,) = recognizer.label([stored], top_k=7, ranking="ppl", max_label_tokens=3)
        assert [explained.label for explained in explanation.labels] == expected

    def test_fewer_image_tokens_of_a_run_are_read_again(self, make_store: MakeStore, tiny_model: Path) -> None:
        labelling = LabelSettings(top_k=7, image_tokens=2).labelling("float32")
        explanation = explain(find(make_store({"a": sample_members("one", 1)}, labelling=labelling), "one"))
        recognizer = Recognizer.from_pretrained(tiny_model, device="cpu")
        (expected,) = recognizer.label([jpeg(1)], top_k=7, image_tokens=2)
        assert [explained.label for explained in explanation.labels] == expected

    def test_a_key_of_several_shards_asks_for_the_shard(self, make_store: MakeStore) -> None:
        store = make_store({"a": sample_members("one", 1), "b": sample_members("one", 2)})
        with pytest.raises(TagstreamError, match="2 images of run r have the key one; give SHARD#KEY: a#one, b#one"):
            find(store, "one")
        assert [find(store, f"{shard}#one").data for shard in "ab"] == [jpeg(1), jpeg(2)]

    def test_of_a_key_twice_in_a_shard_the_labelled_image_is_found(self, make_store: MakeStore) -> None:
        members = [*sample_members("one", 1), *sample_members("x", 3), *sample_members("one", 2)]
        assert find(make_store({"a": members}), "one").data == jpeg(1)

    def test_a_key_may_hold_the_sign_that_parts_it_from_its_shard(self, make_store: MakeStore) -> None:
        assert find(make_store({"a": sample_members("b#1", 1)}), "b#1").data == jpeg(1)

    def test_an_unknown_key_is_told(self, make_store: MakeStore) -> None:
        with pytest.raises(TagstreamError, match="run r has no image with the key '; DROP TABLE images"):
            find(make_store({"a": sample_members("one", 1)}), "'; DROP TABLE images")

    def test_a_rejected_image_is_told_with_its_reason(self, make_store: MakeStore) -> None:
        with pytest.raises(TagstreamError, match=r"one was rejected and has no labels \(\w+: "):
            find(make_store({"a": [("one.txt", b"no image")]}), "one")

    def test_an_original_that_is_gone_is_told(self, make_store: MakeStore, tmp_path: Path) -> None:
        store = make_store({"a": sample_members("one", 1)})
        (tmp_path / "shards" / "a.tar").unlink()
        with pytest.raises(TagstreamError, match="a#one cannot be explained: the original is gone"):
            find(store, "one")

    def test_an_original_that_changed_is_told(self, make_store: MakeStore, tmp_path: Path) -> None:
        store = make_store({"a": sample_members("one", 1)})
        (tmp_path / "shards" / "a.tar").write_bytes(tar_bytes(sample_members("one", 2)))
        with pytest.raises(TagstreamError, match="cannot be explained: the original has changed since it was labelled"):
            find(store, "one")

    def test_another_model_than_the_runs_is_refused_with_both(self, make_store: MakeStore, tiny_model: Path) -> None:
        ours = fingerprint_folder(tiny_model)[:12]
        store = make_store({"a": sample_members("one", 1)}, model="/models/first", model_fingerprint="f" * 64)
        with pytest.raises(TagstreamError, match=f"{ours}, run r was labelled by /models/first with ffffffffffff"):
            find(store, "one", model=str(tiny_model))

    def test_the_same_model_elsewhere_is_taken(self, make_store: MakeStore, tiny_model: Path) -> None:
        store = make_store({"a": sample_members("one", 1)}, model="/models/moved-since")
        assert find(store, "one", model=str(tiny_model)).model == str(tiny_model)
        with pytest.raises(ModelError, match="there is no model /models/moved-since"):
            find(store, "one")

    def test_a_run_whose_labels_see_one_another_is_refused(self, make_store: MakeStore) -> None:
        store = make_store({"a": sample_members("one", 1)}, labelling={**LABELLING, "sampling": "greedy"})
        with pytest.raises(TagstreamError, match="labelled with sampling greedy"):
            find(store, "one")

    def test_an_image_that_was_labelled_under_a_higher_limit_is_not_too_large(self, make_store: MakeStore) -> None:
        assert find(make_store({"a": sample_members("one", 1)}), "one").settings.max_image_pixels >= 96 * 72

    def test_a_store_that_is_none_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="there is no store at"):
            find(str(tmp_path), "one")


class TestFiles:
    """An image outside of any store."""

    def test_a_file_is_labelled_with_the_usual_settings(self, tmp_path: Path, tiny_model: Path) -> None:
        upright = jpeg(1)
        (tmp_path / "photo.jpg").write_bytes(upright)
        subject = find_file(str(tmp_path / "photo.jpg"), str(tiny_model), None)
        expected = Recognizer.from_pretrained(tiny_model, device="cpu").label([upright], top_k=10)[0]
        assert [explained.label for explained in explain(subject).labels] == expected

    def test_a_photograph_is_told_to_be_none_of_what_the_demo_model_knows_and_no_other_model(
        self, tmp_path: Path, tiny_model: Path
    ) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (96, 96), np.uint8)
        Image.fromarray(noise).save(tmp_path / "grey.png")
        subject = find_file(str(tmp_path / "grey.png"), "demo", None)
        assert str(find_strangeness(subject)).startswith("the image does not look like the composed scenes")
        assert find_strangeness(replace(subject, model=str(tiny_model))) is None

    def test_a_file_on_an_object_store_is_read(self, s3: str, tiny_model: Path) -> None:
        filesystem, path = open_filesystem(f"{s3}/photos/[1].jpg")
        filesystem.pipe_file(path, jpeg(1))
        assert find_file(f"{s3}/photos/[1].jpg", str(tiny_model), 3).data == jpeg(1)

    @pytest.mark.parametrize("name", ["nothing.jpg", "."])
    def test_what_is_no_file_is_told(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(
            TagstreamError, match=r"there is no file .*; for the key of an image in a store give --store"
        ):
            find_file(str(tmp_path / name), "demo", None)

    def test_a_file_that_is_no_image_is_told(self, tmp_path: Path, tiny_model: Path) -> None:
        (tmp_path / "notes.txt").write_text("no image")
        with pytest.raises(TagstreamError, match=r"notes.txt is no image that can be labelled: not a readable image"):
            explain(find_file(str(tmp_path / "notes.txt"), str(tiny_model), None))

    def test_more_labels_than_words_are_refused(self, tmp_path: Path) -> None:
        from transformers import CLIPVisionConfig, LlamaConfig

        from tests.fixtures.recognizers.random_recognizer import random_recognizer

        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        vision = CLIPVisionConfig(**sizes, image_size=28, patch_size=14)
        random_recognizer(vision=vision, text=LlamaConfig(**sizes, vocab_size=32)).save_pretrained(tmp_path / "model")
        (tmp_path / "photo.jpg").write_bytes(jpeg(1))
        with pytest.raises(TagstreamError, match=r"cannot be labelled by .*: top_k is 100; expected 1 to 32"):
            explain(find_file(str(tmp_path / "photo.jpg"), str(tmp_path / "model"), 100))
