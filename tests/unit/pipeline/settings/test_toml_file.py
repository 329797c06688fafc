"""Settings of any dataclass, read from a parsed TOML file: names, types, tables, ranges."""

from __future__ import annotations

import math
import re
import sys
import tomllib
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.errors import TagstreamError
from pipeline.settings.toml_file import check_choice, check_range, fits_float, read_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Settings that are a table of others."""

    width: int = 3
    weight: float = 0.5

    def __post_init__(self) -> None:
        check_range("width", self.width, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One setting of each type."""

    steps: int = 7
    rate: float = 0.25
    name: str = "plain"
    is_on: bool = True
    words: tuple[str, ...] = ("a",)
    amounts: dict[str, float] = field(default_factory=dict)
    sizes: Sizes = field(default_factory=Sizes)


def read(text: str) -> Settings:
    return read_settings(Settings, tomllib.loads(text), "my.toml")


class TestValues:
    """What fits."""

    def test_every_type_can_stand_in_a_file(self) -> None:
        text = """
            steps = 1
            rate = 0.125
            name = "größe"
            is_on = false
            words = ["x", "y"]
            amounts = {gpu_node = 0.5}
            [sizes]
            width = 4
            weight = 2.0
        """
        assert read(text) == Settings(
            steps=1,
            rate=0.125,
            name="größe",
            is_on=False,
            words=("x", "y"),
            amounts={"gpu_node": 0.5},
            sizes=Sizes(width=4, weight=2.0),
        )

    def test_what_a_file_leaves_out_has_its_default(self) -> None:
        assert read("") == Settings()

    def test_a_table_leaves_the_rest_of_it_at_its_defaults(self) -> None:
        assert read("[sizes]\nwidth = 64") == Settings(sizes=Sizes(width=64))

    def test_a_table_may_be_empty(self) -> None:
        assert read("[sizes]\n[amounts]") == Settings()

    def test_a_list_may_be_empty(self) -> None:
        assert read("words = []").words == ()

    def test_a_list_keeps_its_order(self) -> None:
        assert read('words = ["b", "a", "b"]').words == ("b", "a", "b")

    def test_settings_that_were_read_before_may_be_read_again(self) -> None:
        assert read_settings(Settings, {"words": ("b", "a"), "sizes": {"width": 4}}, "a record").words == ("b", "a")

    @pytest.mark.parametrize(("text", "value"), [("rate = 1", 1.0), ("rate = 0", 0.0), ("rate = -2", -2.0)])
    def test_a_whole_number_for_a_fraction_becomes_one(self, text: str, value: float) -> None:
        got = read(text).rate
        assert (got, type(got)) == (value, float)

    def test_so_it_does_within_a_table(self) -> None:
        assert type(read("[sizes]\nweight = 1").sizes.weight) is float


class TestNames:
    """Names that there are not."""

    def test_an_unknown_name_is_refused_and_the_known_ones_are_named(self) -> None:
        known = "amounts, is_on, name, rate, sizes, steps, words"
        with pytest.raises(TagstreamError, match=f"^my.toml has an unknown setting 'stepps'; known are {known}$"):
            read("stepps = 1")

    def test_an_unknown_name_within_a_table_names_the_table(self) -> None:
        with pytest.raises(
            TagstreamError, match=r"^my\.toml, table sizes has an unknown setting 'height'; known are weight, width$"
        ):
            read("[sizes]\nheight = 3")

    def test_an_unknown_table_is_an_unknown_name(self) -> None:
        with pytest.raises(TagstreamError, match="unknown setting 'size'"):
            read("[size]\nwidth = 3")


class TestTypes:
    """Values of another type."""

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("steps", True, "value of type int"),
            ("steps", "7", "value of type int"),
            ("steps", 7.0, "value of type int"),
            ("steps", [7], "value of type int"),
            ("steps", None, "value of type int"),
            ("steps", {"n": 1}, "value of type int"),
            ("is_on", 1, "value of type bool"),
            ("is_on", "true", "value of type bool"),
            ("name", 32, "value of type str"),
            ("name", ["plain"], "value of type str"),
            ("rate", "1e-3", "value of type float"),
            ("rate", True, "value of type float"),
            ("rate", 10**400, "value of type float"),
            ("words", "photo", "list of strings"),
            ("words", [1], "list of strings"),
            ("words", [["a"]], "list of strings"),
            ("amounts", 3, "table"),
            ("amounts", [], "table"),
            ("sizes", 3, "table"),
            ("sizes", "all", "table"),
            ("sizes", [], "table"),
        ],
    )
    def test_a_value_of_another_type_is_refused(self, name: str, value: Any, expected: str) -> None:
        message = rf"^my\.toml: {name} is {re.escape(repr(value))}; expected a {expected}$"
        with pytest.raises(TagstreamError, match=message):
            read_settings(Settings, {name: value}, "my.toml")

    def test_one_within_a_table_names_the_table(self) -> None:
        with pytest.raises(TagstreamError, match=r"^my\.toml, table sizes: weight is 'much'; expected a value of type"):
            read('[sizes]\nweight = "much"')

    def test_what_the_class_itself_refuses_is_refused(self) -> None:
        with pytest.raises(TagstreamError, match=r"^width is 0; expected 1 or more$"):
            read("[sizes]\nwidth = 0")


class TestRanges:
    """What a number or a word may be."""

    @pytest.mark.parametrize(("value", "high"), [(1, 3), (2, 3), (3, 3), (10**400, None), (1.0, None)])
    def test_the_ends_of_a_range_belong_to_it(self, value: float, high: float | None) -> None:
        check_range("x", value, 1, high)

    @pytest.mark.parametrize(
        ("value", "high", "expected"),
        [
            (0, 3, "1 to 3"),
            (4, 3, "1 to 3"),
            (0, None, "1 or more"),
            (math.nan, None, "1 or more"),
            (math.nan, 3, "1 to 3"),
            (math.inf, 3, "1 to 3"),
            (-math.inf, None, "1 or more"),
            (math.inf, None, "a finite number"),
            (math.inf, math.inf, "a finite number"),
        ],
    )
    def test_what_lies_outside_is_refused(self, value: float, high: float | None, expected: str) -> None:
        with pytest.raises(TagstreamError, match=f"^x is {value}; expected {expected}$"):
            check_range("x", value, 1, high)

    def test_a_word_is_one_of_the_choices(self) -> None:
        check_choice("x", "b", ("a", "b"))
        with pytest.raises(TagstreamError, match=r"^x is 'c'; expected one of a, b$"):
            check_choice("x", "c", ("a", "b"))

    @pytest.mark.parametrize("value", [0.5, 1, -3, math.inf, math.nan, int(sys.float_info.max) - 1])
    def test_a_number_fits_a_fraction(self, value: Any) -> None:
        assert fits_float(value)

    @pytest.mark.parametrize("value", [True, "1", None, [1.0], 10**400, -(10**400)])
    def test_anything_else_does_not(self, value: Any) -> None:
        assert not fits_float(value)
