"""The demo corpus: scenes whose content is known, drawn here from small pictograms instead of the font's."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from click.testing import CliRunner, Result
from PIL import Image, ImageDraw

from jobs.demo import scenes
from jobs.demo.scenes import MAX_OBJECTS, SCENE_PX, Scene, draw_scene, pictogram_names
from jobs.verbs import demo_corpus as demo_corpus_module
from jobs.verbs.demo_corpus import demo_corpus, write_shard

N_SCENES = 60
# Kinds of names: with a vowel, in the plural, without an article, of two words.
NAMES = ("apple", "banana", "books", "broccoli", "bus", "hot dog", "octopus", "owl", "scissors", "umbrella")


def drawn_pictogram(number: int) -> Image.Image:
    """A disc in one of a few sizes, each in a colour of its own; its corners are clear."""
    size = (90 + 5 * (number % 4), 90)
    image = Image.new("RGBA", size)
    colour = tuple(int(part) for part in np.random.default_rng(number).integers(0, 256, 3))
    ImageDraw.Draw(image).ellipse((0, 0, size[0] - 1, size[1] - 1), fill=(*colour, 255))
    return image


PICTOGRAMS = {name: drawn_pictogram(number) for number, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def many_scenes() -> list[Scene]:
    return [draw_scene(PICTOGRAMS, (0, number)) for number in range(N_SCENES)]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictograms as a worker process holds them."""
    monkeypatch.setattr(demo_corpus_module, "_pictograms", PICTOGRAMS)


def layouts(n_objects: int, n: int) -> Iterator[list[scenes._Placed]]:
    pictograms = list(PICTOGRAMS.values())[:n_objects]
    for seed in range(n):
        yield scenes._layout(pictograms, np.random.default_rng([n_objects, seed]))


def counted_shares(placed: list[scenes._Placed]) -> list[float]:
    """What part of each object shows, by painting all of them onto one canvas with room around the scene."""
    margin = 2 * SCENE_PX
    canvas = Image.new("L", (SCENE_PX + 2 * margin,) * 2, 0)
    for number, thing in enumerate(placed, start=1):
        solid = thing.pixels.getchannel("A").point(lambda alpha: 255 if alpha > 127 else 0)
        canvas.paste(number, (thing.left + margin, thing.top + margin), solid)
    counts = canvas.crop((margin, margin, margin + SCENE_PX, margin + SCENE_PX)).histogram()
    whole = [sum(thing.pixels.getchannel("A").histogram()[128:]) for thing in placed]
    return [counts[number] / n_pixels for number, n_pixels in enumerate(whole, start=1)]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(demo_corpus, [str(argument) for argument in arguments])


class TestScenes:
    """A scene and what is told of it."""

    def test_the_same_seed_gives_the_same_bytes(self, many_scenes: list[Scene]) -> None:
        assert [draw_scene(PICTOGRAMS, (0, number)) for number in range(5)] == many_scenes[:5]

    @pytest.mark.parametrize("seed", [(0, 1), (1, 0)])
    def test_another_seed_or_another_number_gives_another_scene(
        self, many_scenes: list[Scene], seed: tuple[int, int]
    ) -> None:
        assert draw_scene(PICTOGRAMS, seed).jpeg != many_scenes[0].jpeg

    def test_the_order_of_the_pictograms_does_not_matter(self, many_scenes: list[Scene]) -> None:
        assert draw_scene(dict(reversed(PICTOGRAMS.items())), (0, 3)) == many_scenes[3]

    def test_a_scene_is_a_square_jpeg(self, many_scenes: list[Scene]) -> None:
        for scene in many_scenes:
            image = Image.open(io.BytesIO(scene.jpeg))
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SCENE_PX, SCENE_PX))

    def test_its_labels_are_what_was_placed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layout, asked = scenes._layout, []

        def recorded(pictograms: list[Image.Image], *arguments: Any) -> list[scenes._Placed]:
            names = {id(image): name for name, image in PICTOGRAMS.items()}
            asked.append(sorted(names[id(image)] for image in pictograms))
            return layout(pictograms, *arguments)

        monkeypatch.setattr(scenes, "_layout", recorded)
        labels = [draw_scene(PICTOGRAMS, (0, number)).labels for number in range(10)]
        assert labels == asked

    def test_what_was_placed_can_be_seen(self) -> None:
        # Objects of one colour that no background has: the scene's tint and noise leave it far from any other.
        signal = Image.new("RGBA", (90, 90), (255, 0, 255, 255))
        for number in range(10):
            scene = draw_scene({"signal": signal}, (7, number), max_objects=1)
            red, green, blue = np.asarray(Image.open(io.BytesIO(scene.jpeg)), np.int16).transpose(2, 0, 1)
            share = float(((red - green > 90) & (blue - green > 90)).mean())
            # A side of 0.35 to 0.8 of the scene's, of which at least 0.65 shows.
            assert 0.6 * 0.35**2 < share < 0.8**2 * 1.05

    @pytest.mark.parametrize(
        ("aspect", "size"),
        [("1:1", (192, 192)), ("3:2", (288, 192)), ("4:3", (256, 192)), ("9:16", (192, 341)), ("8:1", (1536, 192))],
    )
    def test_the_short_side_is_that_of_a_square_scene_whatever_the_aspect(
        self, aspect: str, size: tuple[int, int]
    ) -> None:
        scene = draw_scene(PICTOGRAMS, (0, 1), size=scenes.scene_size(aspect))
        assert Image.open(io.BytesIO(scene.jpeg)).size == size

    @pytest.mark.parametrize("aspect", ["3", "3x2", "0:1", "1:0", "-3:2", "1.5:1", "9:1", "1:9", ":", ""])
    def test_what_is_no_aspect_is_refused_with_what_was_expected(self, aspect: str) -> None:
        with pytest.raises(ValueError, match=rf"the aspect is {aspect}; expected "):
            scenes.scene_size(aspect)

    def test_objects_of_a_wide_scene_are_as_large_as_in_a_square_one_and_lie_all_over_it(self) -> None:
        pictogram, wide = PICTOGRAMS["owl"], scenes.scene_size("4:1")
        placed = [scenes._place(pictogram, 1, np.random.default_rng(seed), wide) for seed in range(60)]
        square = [scenes._place(pictogram, 1, np.random.default_rng(seed)) for seed in range(60)]
        assert [thing.pixels.size for thing in placed] == [thing.pixels.size for thing in square]
        middles = [thing.left + thing.pixels.width / 2 for thing in placed]
        assert np.histogram(middles, bins=4, range=(0, wide[0]))[0].min() > 5
        assert all(min(scenes._visible_shares([thing], wide)) >= 0.6 for thing in placed)

    def test_labels_differ_and_stand_in_alphabetical_order(self, many_scenes: list[Scene]) -> None:
        assert all(scene.labels == sorted(set(scene.labels)) for scene in many_scenes)

    def test_every_number_of_objects_up_to_the_most_occurs(self, many_scenes: list[Scene]) -> None:
        assert {len(scene.labels) for scene in many_scenes} == set(range(1, MAX_OBJECTS + 1))

    @pytest.mark.parametrize("most", [1, 2, 4])
    def test_there_are_never_more_objects_than_asked_for(self, most: int) -> None:
        counts = {len(draw_scene(PICTOGRAMS, (0, number), most).labels) for number in range(25)}
        assert counts == set(range(1, most + 1))

    def test_every_kind_occurs(self, many_scenes: list[Scene]) -> None:
        assert {label for scene in many_scenes for label in scene.labels} == set(NAMES)

    def test_the_caption_names_every_object_and_no_other(self, many_scenes: list[Scene]) -> None:
        for scene in many_scenes:
            named = {name for name in NAMES if name in scene.caption}
            assert named == set(scene.labels)

    @pytest.mark.parametrize(
        ("names", "caption"),
        [
            (["owl"], "an owl"),
            (["bus", "octopus"], "a bus and an octopus"),
            (["umbrella", "scissors", "hot dog"], "an umbrella, scissors and a hot dog"),
            (["broccoli", "unicorn"], "broccoli and a unicorn"),
            (["dress", "wine glass"], "a dress and a wine glass"),
        ],
    )
    def test_a_caption_lists_with_articles(
        self, names: list[str], caption: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scenes, "_OPENINGS", ("",))
        assert scenes._caption(names, np.random.default_rng(0)) == caption


class TestLayout:
    """How much of every object shows."""

    @pytest.mark.parametrize("n_objects", range(1, MAX_OBJECTS + 1))
    def test_at_least_the_promised_share_of_every_object_shows(self, n_objects: int) -> None:
        for placed in layouts(n_objects, 15):
            assert min(counted_shares(placed)) >= scenes._MIN_VISIBLE_SHARE

    @pytest.mark.parametrize("n_objects", [1, 3, MAX_OBJECTS])
    def test_shares_are_those_of_a_count_of_painted_pixels(self, n_objects: int) -> None:
        pictograms, rng = list(PICTOGRAMS.values())[:n_objects], np.random.default_rng(0)
        for _ in range(30):
            # Not only the layouts that are good enough.
            placed = [scenes._place(pictogram, n_objects, rng) for pictogram in pictograms]
            assert scenes._visible_shares(placed) == pytest.approx(counted_shares(placed), abs=1e-12)

    @pytest.mark.parametrize(
        ("left", "top", "share"),
        [(0, 0, 1.0), (-10, 0, 0.75), (SCENE_PX - 10, -20, 0.125), (SCENE_PX, 5, 0.0), (-40, 5, 0.0)],
    )
    def test_what_lies_outside_the_scene_does_not_show(self, left: int, top: int, share: float) -> None:
        placed = scenes._Placed(Image.new("RGBA", (40, 40), (0, 0, 0, 255)), left, top)
        assert scenes._visible_shares([placed]) == [share]

    def test_what_is_placed_later_hides_what_is_below(self) -> None:
        square = Image.new("RGBA", (40, 40), (0, 0, 0, 255))
        below, above = scenes._Placed(square, 10, 10), scenes._Placed(square, 30, 10)
        assert scenes._visible_shares([below, above]) == [0.5, 1.0]

    def test_the_clear_parts_of_a_pictogram_hide_nothing(self) -> None:
        square, clear = Image.new("RGBA", (40, 40), (0, 0, 0, 255)), Image.new("RGBA", (40, 40))
        placed = [scenes._Placed(square, 10, 10), scenes._Placed(clear, 10, 10)]
        assert scenes._visible_shares(placed)[0] == 1.0

    def test_where_no_layout_is_good_enough_the_best_is_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scenes, "_MIN_VISIBLE_SHARE", 2.0)
        pictograms = list(PICTOGRAMS.values())[:MAX_OBJECTS]
        best = scenes._layout(pictograms, np.random.default_rng(1))
        rng = np.random.default_rng(1)
        tried = [
            [scenes._place(pictogram, MAX_OBJECTS, rng) for pictogram in pictograms] for _ in range(scenes._MAX_LAYOUTS)
        ]
        assert min(counted_shares(best)) == pytest.approx(max(min(counted_shares(placed)) for placed in tried))


class TestNames:
    """What the corpus shows."""

    def test_there_are_hundreds_of_kinds(self) -> None:
        assert len(pictogram_names()) >= 300

    def test_every_line_of_the_list_has_a_name_and_a_character_of_its_own(self) -> None:
        text = (Path(scenes.__file__).parent / "pictograms.txt").read_text("utf-8")
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        names = pictogram_names()
        assert len(lines) == len(names) == len(set(names.values()))

    def test_names_differ_in_more_than_their_case(self) -> None:
        assert len({name.casefold() for name in pictogram_names()}) == len(pictogram_names())

    def test_a_name_can_be_a_label(self) -> None:
        for name, character in pictogram_names().items():
            assert name == " ".join(name.split())
            assert "," not in name
            assert len(character) == 1


@pytest.mark.usefixtures("loaded")
class TestShards:
    """Scenes as WebDataset shards."""

    def test_a_sample_is_image_caption_and_description_of_one_scene(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "0.tar", 5, range(3, 6), 2)
        samples = list(webdataset.WebDataset(str(tmp_path / "0.tar"), shardshuffle=False))
        assert [sample["__key__"] for sample in samples] == ["scene-0000003", "scene-0000004", "scene-0000005"]
        for number, sample in enumerate(samples, start=3):
            scene = draw_scene(PICTOGRAMS, (5, number), 2)
            assert (sample["jpg"], sample["txt"].decode()) == (scene.jpeg, scene.caption)
            assert json.loads(sample["json"]) == {"captions": [scene.caption], "labels": scene.labels}

    def test_the_same_seed_gives_the_same_shard(self, tmp_path: Path) -> None:
        for name in ("a.tar", "b.tar"):
            write_shard(tmp_path / name, 5, range(3), 2)
        assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()

    def test_the_size_of_the_shards_does_not_change_the_scenes(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "whole.tar", 5, range(4), 3)
        for first in (0, 2):
            write_shard(tmp_path / f"{first}.tar", 5, range(first, first + 2), 3)

        def members(name: str) -> list[tuple[str, bytes]]:
            with tarfile.open(tmp_path / name) as archive:
                return [(member.name, archive.extractfile(member).read()) for member in archive.getmembers()]

        assert members("whole.tar") == members("0.tar") + members("2.tar")

    def test_the_pipelines_reader_finds_labels_and_caption(self, tmp_path: Path) -> None:
        from pipeline.sources.tar_reader import read_tar

        write_shard(tmp_path / "0.tar", 5, range(2), 3)
        with (tmp_path / "0.tar").open("rb") as file:
            samples = list(read_tar(file))
        for number, sample in enumerate(samples):
            scene = draw_scene(PICTOGRAMS, (5, number), 3)
            assert (sample.data, sample.caption) == (scene.jpeg, scene.caption)
            assert list(sample.truth) == scene.labels


class TestCommand:
    """`tagstream demo-corpus`."""

    def test_a_missing_font_is_wrong_usage_that_names_its_package(self, tmp_path: Path) -> None:
        result = run("--out", tmp_path / "corpus", "--font", tmp_path / "none.ttf")
        assert result.exit_code == 2
        (sentence,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
        assert sentence == (
            f"Error: there is no font {tmp_path}/none.ttf; apt install fonts-noto-color-emoji, or name it with --font"
        )
        assert "Traceback" not in result.output

    def test_without_a_font_nothing_is_made(self, tmp_path: Path) -> None:
        run("--out", tmp_path / "corpus", "--font", tmp_path / "none.ttf")
        assert list(tmp_path.iterdir()) == []

    def test_the_whole_command_leaves_with_two_as_well(
        self,
        main: Callable[[], None],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        arguments = ["demo-corpus", "--out", str(tmp_path / "corpus"), "--font", str(tmp_path / "none.ttf")]
        monkeypatch.setattr("sys.argv", ["tagstream", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        assert "there is no font" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "arguments",
        [["--images", "0"], ["--shard-size", "0"], ["--max-objects", "0"], ["--max-objects", "7"], ["--aspect", "3"]],
    )
    def test_a_number_or_aspect_out_of_range_is_wrong_usage(self, tmp_path: Path, arguments: list[str]) -> None:
        assert run("--out", tmp_path / "corpus", *arguments).exit_code == 2
