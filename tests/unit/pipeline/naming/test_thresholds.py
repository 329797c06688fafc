"""Thresholds as a TOML file: what it says, what it may hold, what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import TagstreamError
from pipeline.naming.thresholds import read_thresholds, write_thresholds
from tests.fixtures.stored.thresholds import thresholds_of


class TestFile:
    """Thresholds as TOML."""

    # What Parquet and UTF-8 can hold; a name never is empty. A busy disk takes its time.
    @given(
        names=st.dictionaries(
            st.text(st.characters(codec="utf-8"), min_size=1), st.floats(width=32, allow_nan=False), max_size=5
        ),
        run=st.text(st.characters(codec="utf-8")),
        common=st.floats(allow_nan=False),
    )
    def test_any_name_and_number_is_read_as_it_was_written(
        self, tmp_path_factory: pytest.TempPathFactory, names: dict[str, float], run: str, common: float
    ) -> None:
        path = tmp_path_factory.mktemp("toml") / "thresholds.toml"
        thresholds = thresholds_of(thresholds=names, run=run, common=common)
        write_thresholds(path, thresholds)
        assert read_thresholds(path) == thresholds

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("common = 0.5", "common = nan", "common is nan; expected a number"),
            ("common = 0.5", 'common = "0.5"', "common is '0.5'; expected a number"),
            ("common = 0.5", "common = true", "common is True; expected a number"),
            ("common = 0.5", f"common = {10**400}", "0; expected a number"),
            ("common = 0.5", "", "have no common"),
            ("common = 0.5", "common = 0.5\nfoo = 1", "unknown key 'foo'"),
            ('"dog" = 0.25', '"dog" = nan', "threshold 'dog' is nan; expected a number"),
            ('"dog" = 0.25', '"dog" = "x"', "threshold 'dog' is 'x'; expected a number"),
            ('"dog" = 0.25', '"dog" = 1\n"dog" = 2', "no valid TOML"),
            ('direction = "highest"', 'direction = "lowest"', "the best scores of the ranking prob are the highest"),
            ('direction = "highest"', 'direction = "up"', "direction is 'up'; expected one of highest, lowest"),
            ('ranking = "prob"', 'ranking = "best"', "ranking is 'best'; expected one of"),
            ('truth = "labels"', "truth = 1", "truth is 1; expected a text"),
            ("target_precision = 0.9", "target_precision = 90", "target_precision is 90.0; expected more than 0"),
        ],
    )
    def test_what_does_not_fit_is_named_with_its_file(self, tmp_path: Path, old: str, new: str, message: str) -> None:
        path = tmp_path / "mine.toml"
        write_thresholds(path, thresholds_of())
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(TagstreamError) as caught:
            read_thresholds(path)
        assert message in str(caught.value)
        assert "mine.toml" in str(caught.value)

    def test_a_file_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(TagstreamError, match=r"cannot read the thresholds .*none.toml"):
            read_thresholds(tmp_path / "none.toml")


class TestWords:
    """What a file of thresholds says, and what it may hold."""

    @pytest.mark.parametrize(
        ("ranking", "direction", "sentences"),
        [
            ("prob", "highest", ("where its score is at or above the threshold", "No score is at or above inf.")),
            ("sim", "lowest", ("where its score is at or below the threshold", "No score is at or below -inf.")),
        ],
    )
    def test_a_file_says_which_scores_are_believed(
        self, tmp_path: Path, ranking: str, direction: str, sentences: tuple[str, str]
    ) -> None:
        write_thresholds(tmp_path / "t.toml", thresholds_of(ranking=ranking, direction=direction))
        first, second = (tmp_path / "t.toml").read_text("utf-8").splitlines()[:2]
        assert sentences[0] in first
        assert second == f"# {sentences[1]}"

    @pytest.mark.parametrize("name", ["a\x7fb", 'a"b', "a\\b", "a\nb", "\x00\x1f", "a.b = 1", "[x]", "🐙"])
    def test_a_name_with_signs_of_toml_is_read_as_it_was_written(self, tmp_path: Path, name: str) -> None:
        thresholds = thresholds_of(thresholds={name: 0.5})
        write_thresholds(tmp_path / "t.toml", thresholds)
        assert read_thresholds(tmp_path / "t.toml") == thresholds

    @pytest.mark.parametrize("changed", [{"target_precision": 1.0}, {"target_precision": 1e-9}, {"truth": "captions"}])
    def test_the_outermost_values_are_read(self, tmp_path: Path, changed: dict[str, Any]) -> None:
        write_thresholds(tmp_path / "t.toml", thresholds_of(**changed))
        assert read_thresholds(tmp_path / "t.toml") == thresholds_of(**changed)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"target_precision": 0.0}, "target_precision is 0.0; expected more than 0 and at most 1"),
            ({"target_precision": -0.5}, "target_precision is -0.5; expected more than 0 and at most 1"),
            ({"target_precision": 1.001}, "target_precision is 1.001; expected more than 0 and at most 1"),
            ({"truth": "nouns"}, "truth is 'nouns'; expected one of labels, captions"),
            ({"ranking": "sim"}, "direction is 'highest'; the best scores of the ranking sim are the lowest"),
        ],
    )
    def test_values_outside_are_refused(self, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
        write_thresholds(tmp_path / "t.toml", thresholds_of(**changed))
        with pytest.raises(TagstreamError, match=re.escape(message)):
            read_thresholds(tmp_path / "t.toml")

    def test_thresholds_that_are_no_table_are_refused(self, tmp_path: Path) -> None:
        write_thresholds(tmp_path / "t.toml", thresholds_of())
        text = (tmp_path / "t.toml").read_text("utf-8").split("[thresholds]")[0]
        (tmp_path / "t.toml").write_text(f"{text}thresholds = [0.5]\n", "utf-8")
        with pytest.raises(TagstreamError, match=r"thresholds is \[0.5\]; expected a table of numbers"):
            read_thresholds(tmp_path / "t.toml")


def test_a_file_of_before_is_for_open_labels(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.toml"
    write_thresholds(path, thresholds_of(labels="listed"))
    assert read_thresholds(path).labels == "listed"
    path.write_text(path.read_text().replace('labels = "listed"\n', ""))
    assert read_thresholds(path).labels == "open"
