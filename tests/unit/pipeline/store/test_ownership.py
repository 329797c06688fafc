"""Which file holds which shard, and which of several owns it."""

from __future__ import annotations

from itertools import permutations
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.store.ownership import (
    CommittedShards,
    HeldShard,
    ShardFile,
    ShardVersion,
    compacted_file_name,
    file_name,
    find_owners,
    is_compacted,
    read_held,
    shard_stem,
    split_file_name,
    write_held,
)

FIRST, LATER = "compacted!000001-0123456789ab.parquet", "compacted!000002-0123456789ab.parquet"


class TestFileNames:
    """Which file a shard is written to."""

    @settings(max_examples=100)
    @given(st.lists(st.text(max_size=260), min_size=2, max_size=6, unique=True))
    @example(["a/b", "a%2Fb"])
    @example(["x" * 250 + "a", "x" * 250 + "b"])
    @example([".a", "%2Ea", "_a", "%5Fa"])
    def test_other_names_are_other_files_that_every_file_system_takes(self, names: list[str]) -> None:
        stored = [file_name(name) for name in names]
        assert len(set(stored)) == len(names)
        for name in stored:
            assert name.isascii()
            assert len(name) <= 255
            assert not set(name) & set('/\\*?[]{}:"<>|\0')
            assert not name.startswith((".", "_"))

    @settings(max_examples=50)
    @given(st.text("abcXYZ019-+=,@() ~", min_size=1, max_size=200))
    def test_a_plain_name_stays_readable(self, name: str) -> None:
        assert file_name(name) == name + ".parquet"

    def test_a_path_is_escaped_as_in_a_url(self) -> None:
        assert file_name("train/größe.v2/00000") == quote("train/größe.v2/00000", safe="") + ".parquet"

    @settings(max_examples=200)
    @given(st.text(max_size=260), st.integers(0, 10**6))
    @example("a!g1", 0)
    def test_a_file_tells_which_generation_of_which_shard_it_holds(self, shard: str, generation: int) -> None:
        name = file_name(shard, generation)
        assert split_file_name(name) == (shard_stem(shard), generation)
        assert not is_compacted(name)


def holding(name: str, **generations: int) -> ShardFile:
    """A compacted file with shards in these generations."""
    held = tuple(HeldShard(shard, generation, 5.0, 7, "v1") for shard, generation in generations.items())
    return ShardFile(name, 9.0, held)


def owners_of(committed: CommittedShards) -> dict[str, str]:
    return {stem: shard.file for stem, shard in committed.by_stem.items()}


class TestOwners:
    """Which file of several owns a shard."""

    @pytest.mark.parametrize(
        ("files", "owner"),
        [
            ([ShardFile("a.parquet", 9.0), ShardFile("a!g1.parquet", 1.0)], "a!g1.parquet"),
            ([ShardFile("a!g9.parquet", 9.0), ShardFile("a!g10.parquet", 1.0)], "a!g10.parquet"),
            ([holding(LATER, a=0), ShardFile("a!g1.parquet", 1.0)], "a!g1.parquet"),
            ([holding(FIRST, a=1), holding(LATER, a=0)], FIRST),
            ([holding(FIRST, a=1), ShardFile("a!g1.parquet", 9.0)], FIRST),
            ([holding(FIRST, a=1), holding(LATER, a=1), ShardFile("a!g1.parquet", 9.0)], LATER),
        ],
    )
    def test_it_is_that_of_the_highest_generation_and_among_equals_of_the_latest_compaction(
        self, files: list[ShardFile], owner: str
    ) -> None:
        for listed in permutations(files):
            committed = find_owners(listed)
            assert owners_of(committed) == {"a": owner}
            assert set(committed.ownerless) == {file.name for file in files} - {owner}

    def test_a_compacted_file_owns_what_no_other_file_took_from_it(self) -> None:
        committed = find_owners([holding(FIRST, a=0, b=0, c=0), ShardFile("b!g1.parquet", 1.0)])
        assert owners_of(committed) == {"a": FIRST, "b": "b!g1.parquet", "c": FIRST}
        assert (committed.superseded, committed.ownerless) == ({FIRST: ["b"]}, [])
        assert set(committed.files) == {FIRST, "b!g1.parquet"}

    def test_a_compacted_file_all_of_whose_shards_others_own_is_ownerless(self) -> None:
        committed = find_owners([holding(FIRST, a=0, b=0), holding(LATER, a=0, b=0)])
        assert (committed.ownerless, committed.superseded, set(committed.files)) == ([FIRST], {}, {LATER})

    def test_a_compacted_file_tells_what_it_knows_of_a_shard(self) -> None:
        shard = find_owners([holding(FIRST, a=3)])["a"]
        assert (shard.generation, shard.modified, shard.version) == (3, 5.0, ShardVersion(7, "v1"))

    def test_of_a_shards_own_file_only_the_name_and_the_time_are_known(self) -> None:
        shard = find_owners([ShardFile("a!g3.parquet", 9.0)])["a"]
        assert (shard.generation, shard.modified, shard.version) == (3, 9.0, None)

    def test_a_shard_is_found_by_its_name_whatever_its_file_is_called(self) -> None:
        committed = find_owners([ShardFile("a%2Fb.parquet", None), holding(FIRST, **{"c/d": 0})])
        assert "a/b" in committed
        assert "c/d" in committed
        assert "a%2Fb" not in committed
        assert len(committed) == 2


class TestCompactedFiles:
    """What compacted files are called, and what they say of their shards."""

    @pytest.mark.parametrize(
        ("after", "sequence"),
        [
            ([], 1),
            ([ShardFile("a.parquet", None)], 1),
            ([ShardFile(LATER, None), ShardFile(FIRST, None)], 3),
            ([ShardFile("compacted!999999-0.parquet", None)], 1_000_000),
            (
                [ShardFile("compacted!1000000-0.parquet", None), ShardFile("compacted!999999-0.parquet", None)],
                1_000_001,
            ),
        ],
    )
    def test_a_new_one_comes_after_all_others(self, after: list[ShardFile], sequence: int) -> None:
        name = compacted_file_name(after)
        assert is_compacted(name)
        assert ShardFile(name, None).sequence == sequence

    def test_two_that_are_made_at_once_have_different_names(self) -> None:
        assert compacted_file_name([]) != compacted_file_name([])

    @pytest.mark.parametrize("shard", ["compacted", "compacted!000001-0123456789ab"])
    def test_no_shard_has_a_file_of_such_a_name(self, shard: str) -> None:
        assert not is_compacted(file_name(shard))

    def test_the_shards_are_read_as_they_were_written(self) -> None:
        shards = (HeldShard('größe/"x"', 2, 1.5, 10**12, "v1"), HeldShard("b", 0, None, None, None))
        assert read_held(write_held(shards)) == shards

    @pytest.mark.parametrize("text", ["", "{", "1", "[1]", "null", '[{"shard": "a"}]', '[{"shard": "a", "other": 1}]'])
    def test_another_text_is_refused(self, text: str) -> None:
        with pytest.raises((ValueError, TypeError)):
            read_held(text)
