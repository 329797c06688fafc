"""What a run is identified by, and which runs a job does not go on with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from model.images.reduced_decoding import DECODING
from pipeline.cluster.nodes import Node
from pipeline.cluster.pool import plan_pool
from pipeline.errors import StoreError, TagstreamError
from pipeline.labelling.request import LabelRequest
from pipeline.labelling.run_identity import RunIdentity
from pipeline.settings.labelling import LabelSettings
from pipeline.sources.image_folder import count_buckets
from pipeline.sources.shard import ColumnNames, FileVersion, ImageFile, Source
from pipeline.store.store import Store

SOURCE = Source("shards", "/data/shards")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def identify(
    source: Source = SOURCE,
    *,
    model: str = "demo",
    run: str | None = "r",
    settings: LabelSettings | None = None,
    n_gpus: int = 0,
    columns: ColumnNames | None = None,
) -> RunIdentity:
    request = LabelRequest(
        source=source.given,
        store="",
        model=model,
        run=run,
        settings=settings or LabelSettings(),
        columns=columns or ColumnNames(),
    )
    return RunIdentity.of(request, source, plan_pool([Node(8, n_gpus)], request.settings))


def other_model(folder: Path) -> str:
    """The demo's model with another preprocessing."""
    import model

    shutil.copytree(Path(model.__file__).parent / "demo", folder)
    preprocessing = folder / "preprocessor_config.json"
    preprocessing.write_text(preprocessing.read_text().replace("{", '{"changed": true,', 1))
    return str(folder)


class TestWhatIsWanted:
    """The record that a request asks for."""

    def test_without_a_name_the_run_is_called_by_its_model_and_its_fingerprint(self) -> None:
        wanted = identify(run=None).wanted
        assert wanted.run == f"demo-{wanted.fingerprint}"

    def test_auto_is_the_dtype_of_the_pool_and_decides_the_fingerprint(self) -> None:
        on_cpu, on_gpu = identify().wanted, identify(n_gpus=1).wanted
        assert (on_cpu.labelling["dtype"], on_gpu.labelling["dtype"]) == ("float32", "bfloat16")
        assert on_cpu.fingerprint != on_gpu.fingerprint

    def test_a_number_of_image_tokens_that_is_all_of_them_is_the_same_run(self) -> None:
        whole, asked, fewer = (
            identify(run=None, settings=LabelSettings(image_tokens=number)).wanted for number in (0, 36, 35)
        )
        assert asked.run == whole.run != fewer.run
        assert fewer.labelling["image_tokens"] == 35

    def test_a_number_of_tokens_of_several_squares_that_is_all_of_them_is_the_same_run(self) -> None:
        whole, asked, fewer = (
            identify(run=None, settings=LabelSettings(views=2, view_tokens=number)).wanted for number in (0, 36, 35)
        )
        assert asked.run == whole.run != fewer.run
        assert fewer.labelling["view_tokens"] == 35
        with pytest.raises(TagstreamError, match="demo cannot label so: view_tokens is 37; this model has 36"):
            identify(settings=LabelSettings(views=2, view_tokens=37))

    def test_it_is_known_how_many_image_tokens_the_model_reads_where_they_are_merged(self) -> None:
        found = [identify(settings=LabelSettings(image_tokens=number)).n_image_tokens for number in (0, 36, 35)]
        assert found == [0, 0, 35]

    def test_more_image_tokens_than_the_model_has_are_refused_with_their_number(self) -> None:
        expected = r"demo cannot label so: image_tokens is 37; this model has 36 image tokens, expected 0 \(all\) to 36"
        with pytest.raises(TagstreamError, match=expected):
            identify(settings=LabelSettings(image_tokens=37))

    def test_a_folder_of_images_is_cut_into_buckets_and_shards_are_not(self) -> None:
        files = [ImageFile(f"{number}.jpg", FileVersion(1, None, 0.0)) for number in range(5)]
        folder = replace(SOURCE, images=files)
        assert identify(folder).wanted.folder_buckets == count_buckets(5)
        assert identify().wanted.folder_buckets == 0

    def test_logins_in_the_source_are_concealed(self) -> None:
        assert identify(Source("https://me:secret@host/a.tar", "")).wanted.source == "https://***@host/a.tar"

    def test_several_sources_are_all_in_the_record(self, tmp_path: Path) -> None:
        given = (f"{tmp_path}/a.tar", "https://me:secret@host/b.tar")
        wanted = identify(Source("a and b", "", addresses=given)).wanted
        assert wanted.addresses == (given[0], "https://***@host/b.tar")
        assert wanted.source == f"{given[0]} 'https://***@host/b.tar'"
        assert identify().wanted.sources == []


class TestOpening:
    """A run is made once, and gone on with by requests of the same identity."""

    def test_the_first_job_makes_the_run(self, store: Store) -> None:
        identity = identify()
        assert identity.open_run(store) == identity.wanted
        assert store.run_names() == ["r"]

    def test_a_later_job_gets_the_record_as_it_was_made(self, store: Store) -> None:
        first = replace(identify().wanted, created="2026-01-01T00:00:00+00:00", versions={"python": "3.0"})
        RunIdentity(first).open_run(store)
        assert identify().open_run(store) == first

    def test_the_settings_that_differ_are_named(self, store: Store) -> None:
        identify().open_run(store)
        other = identify(settings=LabelSettings(top_k=3, ranking="sim"))
        with pytest.raises(StoreError, match=r"made with other settings \(ranking prob -> sim; top_k 20 -> 3\); leave"):
            other.open_run(store)

    @pytest.mark.parametrize(
        ("settings", "difference"),
        [
            (LabelSettings(image_tokens=9), "image_tokens 0 -> 9"),
            (LabelSettings(views="whole", view_tokens=9), "view_tokens 0 -> 9; views 1 -> 4"),
        ],
    )
    def test_settings_that_a_record_leaves_out_are_named_by_their_default(
        self, store: Store, settings: LabelSettings, difference: str
    ) -> None:
        identify().open_run(store)
        with pytest.raises(StoreError, match=rf"made with other settings \({difference}\); leave"):
            identify(settings=settings).open_run(store)

    def test_another_model_is_named_before_the_settings(self, store: Store, tmp_path: Path) -> None:
        identify().open_run(store)
        other = identify(model=other_model(tmp_path / "other"), settings=LabelSettings(top_k=3))
        expected = r"\(model demo -> .*/other \(other weights or preprocessing\); top_k 20 -> 3\)"
        with pytest.raises(StoreError, match=expected):
            other.open_run(store)

    def test_another_root_is_refused_though_its_shards_may_have_the_same_names(self, store: Store) -> None:
        identify().open_run(store)
        with pytest.raises(StoreError, match="labels /data/shards, not /data/other; give this source a --run name"):
            identify(Source("shards", "/data/other")).open_run(store)

    def test_a_list_is_named_by_what_was_given(self, store: Store) -> None:
        identify().open_run(store)
        with pytest.raises(StoreError, match="labels /data/shards, not @/lists/other; give"):
            identify(Source("@/lists/other", "")).open_run(store)

    def test_other_columns_of_the_same_source_are_another_run(self, store: Store) -> None:
        identify(columns=ColumnNames(image="img")).open_run(store)
        expected = "reads the columns image img of Parquet files, not the columns that it finds; ask for the same"
        with pytest.raises(StoreError, match=expected):
            identify().open_run(store)

    @pytest.mark.parametrize("run", ["r", None], ids=["named", "called by its fingerprint"])
    @pytest.mark.parametrize("rule", [1, 2])
    @pytest.mark.parametrize("decoding", [DECODING, "exact"])
    def test_a_run_of_a_former_rule_of_pixels_goes_on_by_it(
        self, store: Store, run: str | None, rule: int, decoding: str
    ) -> None:
        made = identify(run=run, settings=LabelSettings(pixel_rule=rule)).open_run(store)
        assert made.tells_flat == (rule > 1)
        assert "decoding" not in made.labelling
        assert identify(run=run, settings=LabelSettings(decoding=decoding)).open_run(store) == made
        assert store.run_names() == [made.run]

    def test_of_two_former_runs_the_one_of_the_newer_rule_goes_on(self, store: Store) -> None:
        rules = [LabelSettings(pixel_rule=rule) for rule in (1, 2)]
        _, newer = [identify(run=None, settings=settings).open_run(store) for settings in rules]
        assert identify(run=None).open_run(store) == newer

    def test_a_decoding_that_former_rules_have_not_makes_a_new_run(self, store: Store) -> None:
        former = identify(run=None, settings=LabelSettings(pixel_rule=2)).open_run(store)
        made = identify(run=None, settings=LabelSettings(decoding="faster")).open_run(store)
        assert made.labelling["decoding"] == "faster"
        assert store.run_names() == sorted([former.run, made.run])

    def test_another_decoding_than_a_runs_own_is_named(self, store: Store) -> None:
        identify(settings=LabelSettings(decoding="exact")).open_run(store)
        with pytest.raises(StoreError, match=r"made with other settings \(decoding exact -> faster\); leave"):
            identify(settings=LabelSettings(decoding="faster")).open_run(store)

    def test_settings_that_differ_from_those_of_a_former_run_are_named_without_the_rule(self, store: Store) -> None:
        identify(settings=LabelSettings(pixel_rule=1)).open_run(store)
        with pytest.raises(StoreError, match=r"made with other settings \(top_k 20 -> 3\); leave"):
            identify(settings=LabelSettings(top_k=3)).open_run(store)

    def test_beside_a_former_run_of_another_source_a_new_one_is_made(self, store: Store) -> None:
        former = identify(run=None, settings=LabelSettings(pixel_rule=1)).open_run(store)
        made = identify(Source("shards", "/data/other"), run=None).open_run(store)
        assert made.tells_flat
        assert store.run_names() == sorted([former.run, made.run])

    def test_a_run_of_another_schema_version_is_refused(self, store: Store) -> None:
        store.create_run(replace(identify().wanted, schema_version=99))
        with pytest.raises(StoreError, match="has schema version 99, this program knows 1 and 2; use another --run"):
            identify().open_run(store)
