"""What a run is identified by: its model, its settings and its source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from model.choices import TOKEN_MERGING
from model.fingerprint import fingerprint_folder
from model.folder import is_hub_model
from model.images.perceptual_hash import load_hasher
from model.images.pixels import PIXEL_RULE
from model.images.reduced_decoding import DECODING
from model.images.views import CENTRE, most_squares
from pipeline.cluster.pool import PoolPlan
from pipeline.errors import StoreError, TagstreamError
from pipeline.labelling.request import LabelRequest
from pipeline.machine import installed_versions
from pipeline.settings.labelling import (
    FORMER_DECODING,
    FORMER_LABELLING,
    FORMER_PIXEL_RULE,
    LabelSettings,
    run_fingerprint,
)
from pipeline.sources.image_folder import count_buckets
from pipeline.sources.listing import absolute_source, source_name
from pipeline.sources.shard import Source
from pipeline.storage.model_cache import fetch_model, model_name, resolve_image_tokens
from pipeline.store.store import Store
from pipeline.text import conceal
from schemas import READABLE_VERSIONS, SCHEMA_VERSION, RunRecord


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """The run that a job asks for. A store may hold a run of this name already; it has to have the same identity."""

    wanted: RunRecord
    """The record that the run gets if this job is its first."""
    former: tuple[RunRecord, ...] = ()
    """The records that the run got if its first job knew former rules of pixels alone, the newest first. Such a run
    goes on by its rule. Empty where a decoding is asked for that those rules have not."""
    n_image_tokens: int = 0
    """Tokens that a photograph costs a model of the hub, or that those of any other model are merged into; 0 where such
    a model reads all of its own."""
    ignores_views: bool = False
    """Whether several views were asked for, and the model takes pictures of any shape."""

    @classmethod
    def of(cls, request: LabelRequest, source: Source, pool: PoolPlan) -> Self:
        """The run of a request. Reads the model, for its fingerprint; a remote one is fetched to this machine.

        Args:
            request: its model is pinned, so that the run's record names the same model for ever; its run's name is one
                that a run can have.
            source: what `request.source` leads to.
            pool: its dtype decides the labels where the settings say `auto`.

        Raises TagstreamError where the model cannot be read.
        """
        folder = fetch_model(request.model)
        model_fingerprint, is_of_hub = fingerprint_folder(folder), is_hub_model(folder)
        settled = _settled_of_hub(request) if is_of_hub else _settled_tokens(request)
        settings = settled.settings
        given = [conceal(absolute_source(one)) for one in source.addresses or request.sources]

        def named(pixel_rule: int) -> dict[str, Any]:
            labelling = replace(settings, pixel_rule=pixel_rule).labelling(pool.dtype, is_of_hub)
            fingerprint = run_fingerprint(model_fingerprint, labelling)
            run = request.run or f"{model_name(request.model)}-{fingerprint}"
            return {"run": run, "fingerprint": fingerprint, "labelling": labelling}

        wanted = RunRecord(
            **named(settings.pixel_rule),
            schema_version=SCHEMA_VERSION,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            source=source_name(given),
            source_root=source.root,
            folder_buckets=count_buckets(len(source.images)) if source.images else 0,
            model=request.model,
            model_fingerprint=model_fingerprint,
            versions=installed_versions(),
            sources=given if len(given) > 1 else [],
            columns=request.columns.given(),
            reuses=settings.reuse,
            perceptual_hash=settings.perceptual_hash or settings.skip_near_duplicates,
        )
        knows_former = settings.decoding in (DECODING, FORMER_DECODING)
        rules = range(PIXEL_RULE - 1, FORMER_PIXEL_RULE - 1, -1) if knows_former else ()
        former = tuple(replace(wanted, **named(rule)) for rule in rules)
        return cls(wanted, former, settled.n_image_tokens, settled.ignores_views)

    def open_run(self, store: Store) -> RunRecord:
        """The record of the run in a store; makes the run where there is none of this name, and none of before.

        Raises StoreError where the run of this name has another schema version, model, settings or source, and
        TagstreamError where its images get perceptual hashes and nothing here makes any.
        """
        stored = store.run(self.wanted.run).read_record()
        if stored is None and (former := self._find_former(store)) is not None:
            return former
        if (stored or self.wanted).perceptual_hash:
            # Before the run is made, which would insist on them.
            _check_hasher()
        stored = stored or store.create_run(self.wanted)
        self._check_same(stored, store.url)
        return stored

    def _find_former(self, store: Store) -> RunRecord | None:
        """The run of this model, these settings and this source that was made by a former rule of pixels."""
        for former in self.former:
            stored = None if former.run == self.wanted.run else store.run(former.run).read_record()
            if stored is None or stored.schema_version not in READABLE_VERSIONS:
                continue
            if (stored.fingerprint, stored.source_root) == (former.fingerprint, former.source_root):
                return stored
        return None

    def _check_same(self, stored: RunRecord, store: str) -> None:
        rule = _pixel_rule(stored)
        wanted = next((former for former in self.former if _pixel_rule(former) == rule), self.wanted)
        if stored.schema_version not in READABLE_VERSIONS:
            raise StoreError(
                f"run {stored.run} in {store} has schema version {stored.schema_version}, this program knows "
                f"{' and '.join(map(str, READABLE_VERSIONS))}; use another --run or --store"
            )
        if stored.fingerprint != wanted.fingerprint:
            differences = "; ".join(_differences(stored, wanted))
            raise StoreError(
                f"run {stored.run} in {store} was made with other settings ({differences}); "
                "leave --run out or give another name to make a new run beside it"
            )
        if stored.source_root != wanted.source_root:
            raise StoreError(
                f"run {stored.run} in {store} labels {stored.source_root or stored.source}, not "
                f"{wanted.source_root or wanted.source}; give this source a --run name of its own"
            )
        if wanted.reuses and not stored.reuses:
            raise StoreError(
                f"run {stored.run} in {store} was made without reuse of labels; leave reuse out, or give another --run "
                "name: the new run reuses the labels of this one"
            )
        if wanted.perceptual_hash and not stored.perceptual_hash:
            raise StoreError(
                f"run {stored.run} in {store} was made without perceptual hashes; leave perceptual_hash out, or give "
                "another --run name"
            )
        if stored.columns != wanted.columns:
            raise StoreError(
                f"run {stored.run} in {store} reads {_columns(stored)} of Parquet files, not {_columns(wanted)}; "
                "ask for the same columns, or give the others a --run name of their own"
            )


class _Settled(NamedTuple):
    """Settings as the model leaves them, and what `RunIdentity` tells beside its records."""

    settings: LabelSettings
    n_image_tokens: int
    ignores_views: bool = False


def _settled_of_hub(request: LabelRequest) -> _Settled:
    settings = request.settings
    cost = request.labeler_class.measure_image_cost(request.model, settings.hub)
    ignores_views = not cost.sees_squares and most_squares(settings.views) > 1
    if not cost.sees_squares:
        settings = replace(settings, views=CENTRE, view_tokens=0)
    # With those by default: another version of the program, with others, would label another run.
    settings = replace(settings, hub=replace(settings.hub, image_options=cost.image_options))
    return _Settled(settings, cost.n_tokens, ignores_views)


def _settled_tokens(request: LabelRequest) -> _Settled:
    # Asked for by number or by 0, all tokens give the same labels, and the same run.
    settings, n_image_tokens = request.settings, 0
    if settings.image_tokens:
        n_image_tokens = resolve_image_tokens(request.model, settings.image_tokens)
        settings = replace(settings, image_tokens=n_image_tokens)
    if settings.view_tokens:
        n_view_tokens = resolve_image_tokens(request.model, settings.view_tokens, "view_tokens")
        settings = replace(settings, view_tokens=n_view_tokens)
    return _Settled(settings, n_image_tokens)


def _check_hasher() -> None:
    try:
        load_hasher()
    except ImportError as error:
        raise TagstreamError(str(error)) from error


def _pixel_rule(record: RunRecord) -> int:
    return record.labelling.get("pixel_rule", FORMER_PIXEL_RULE)


def _columns(record: RunRecord) -> str:
    asked = ", ".join(f"{role} {name}" for role, name in record.columns.items())
    return f"the columns {asked}" if asked else "the columns that it finds"


def _differences(stored: RunRecord, wanted: RunRecord) -> list[str]:
    """The model and the settings in which two runs differ, as `name stored -> wanted`."""
    # A run whose tokens are not merged could be by any method.
    left_out = {**FORMER_LABELLING, "token_merging": TOKEN_MERGING}
    former, asked = {**left_out, **stored.labelling}, {**left_out, **wanted.labelling}
    differences = [
        f"{name} {former.get(name)} -> {asked.get(name)}"
        for name in sorted({*former, *asked})
        if former.get(name) != asked.get(name)
    ]
    if stored.model_fingerprint != wanted.model_fingerprint:
        differences.insert(0, f"model {stored.model} -> {wanted.model} (other weights or preprocessing)")
    return differences
