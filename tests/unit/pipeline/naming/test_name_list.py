"""Lists of names as files have them, and which names an image keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import TagstreamError
from pipeline.naming import name_list
from pipeline.naming.name_list import NameList, read_names


def written(folder: Path, text: str, name: str = "animals.txt") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


class TestFiles:
    """What is a list."""

    def test_every_line_is_a_name(self, tmp_path: Path) -> None:
        names = read_names(written(tmp_path, "\ufeffred fox\n\n  Dog \nRed fox\nred fox\r\n"))
        # A recognizer tells capitals: they are kept.
        assert names.names == {"Dog": ("Dog",), "Red fox": ("Red fox",), "red fox": ("red fox",)}
        assert (names.title, names.top, names.min_score) == ("animals", 20, 0.0)

    def test_of_a_vocabulary_with_a_limit_allowed_names_are_the_list(self, tmp_path: Path) -> None:
        text = 'allow = ["Dogs", "owl"]\n[aliases]\npuppy = "dog"\nauto = "car"\n[wider]\ndog = "animal"\n'
        (tmp_path / "v.toml").write_text(text)
        assert dict(read_names(tmp_path / "v.toml").names) == {"dog": ("dog", "puppy"), "owl": ("owl",)}

    def test_of_a_vocabulary_aliases_are_spellings_and_wider_terms_are_names(self, tmp_path: Path) -> None:
        text = 'deny = ["thing"]\n[aliases]\npuppy = "dog"\nhound = "dog"\nstuff = "thing"\n[wider]\ndog = "animal"\n'
        assert read_names(written(tmp_path, text, "a.toml")).names == {
            "animal": ("animal",),
            "dog": ("dog", "puppy", "hound"),
        }
        table = written(tmp_path, "label,name,wider\npuppy,dog,animal\ncat,cat,animal\nstuff,,\n", "a.csv")
        assert read_names(table).names == {"animal": ("animal",), "cat": ("cat",), "dog": ("dog", "puppy")}

    @pytest.mark.parametrize("text", ["", "\n  \n"])
    def test_a_file_without_names_is_refused(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(TagstreamError, match=r"animals.txt has 0 names; expected 1 to 32,767"):
            read_names(written(tmp_path, text))

    def test_more_names_than_there_are_ranks_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(name_list, "MAX_NAMES", 2)
        with pytest.raises(TagstreamError, match="has 3 names; expected 1 to 2"):
            read_names(written(tmp_path, "a\nb\nc"))

    def test_what_cannot_be_read_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(TagstreamError, match="cannot read the names"):
            read_names(tmp_path / "none.txt")
        (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(TagstreamError, match="cannot read the names"):
            read_names(tmp_path / "bytes.txt")


class TestVersions:
    """When two lists are the same one."""

    NAMES = NameList(title="a", names={"dog": ("dog", "puppy"), "cat": ("cat",)})

    def test_the_order_of_lines_and_aliases_does_not_make_another_list(self, tmp_path: Path) -> None:
        first, second = (read_names(written(tmp_path, text)) for text in ("dog\ncat\n", "cat\n\ndog"))
        # Equally probable names stand in the list's order, so that this must be the same, too.
        assert (first.version, list(first.names)) == (second.version, list(second.names))

    @pytest.mark.parametrize(
        "changed",
        [
            {"names": {"dog": ("dog", "puppy")}},
            {"names": {"dog": ("dog", "hound"), "cat": ("cat",)}},
            {"top": 5},
            {"min_score": 0.5},
            {"title": "b"},
        ],
    )
    def test_whatever_decides_the_labels_makes_another_version(self, changed: dict[str, object]) -> None:
        assert replace(self.NAMES, **changed).version != self.NAMES.version

    @pytest.mark.parametrize(
        ("name", "title"), [("My animals (2).txt", "My-animals-2"), ("..txt", "names"), ("größe=a.txt", "gr-e-a")]
    )
    def test_a_version_can_be_part_of_a_path(self, tmp_path: Path, name: str, title: str) -> None:
        version = read_names(written(tmp_path, "dog", name)).version
        assert version.rsplit("-", 1)[0] == title

    def test_a_list_comes_back_from_its_record(self) -> None:
        record = self.NAMES.record("r", "2026-01-01T00:00:00.000+00:00")
        assert NameList.of(type(record).from_json(record.to_json())) == self.NAMES


@pytest.mark.parametrize(
    ("limits", "kept"),
    [({"top": 0}, [2, 0, 3, 1]), ({"top": 2}, [2, 0]), ({"top": 0, "min_score": 0.3}, [2]), ({"top": 9}, [2, 0, 3, 1])],
)
def test_an_image_keeps_the_most_probable_names_and_equal_ones_in_order(
    limits: dict[str, float], kept: list[int]
) -> None:
    names = NameList(title="a", names={name: (name,) for name in "abcd"}, **limits)
    images, places = names.best(np.log(np.array([[0.2, 0.1, 0.5, 0.2], [0.0, 0.0, 0.0, 0.9]], np.float32)))
    assert (images == 0).sum() == len(kept)
    assert places[images == 0].tolist() == kept
    assert places[images == 1][:1].tolist() == [3]
