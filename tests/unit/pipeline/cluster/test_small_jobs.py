"""Which jobs label in their own process."""

from __future__ import annotations

import pytest

from pipeline.cluster.nodes import Node, local_cpus
from pipeline.cluster.pool import plan_pool
from pipeline.cluster.small_jobs import MAX_SMALL_BYTES, fit_small_job
from pipeline.settings.labelling import LabelSettings


@pytest.fixture(autouse=True)
def _no_ray_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)


def is_in_process(n_bytes: int | None, address: str | None = None, **settings: int) -> bool:
    asked = LabelSettings(**settings)  # type: ignore[arg-type]
    return fit_small_job(plan_pool([Node(64, 0)], asked), n_bytes, address, asked).in_process


@pytest.mark.parametrize(
    ("n_bytes", "address", "settings", "expected"),
    [
        (MAX_SMALL_BYTES, None, {}, True),
        (MAX_SMALL_BYTES + 1, None, {}, False),
        (None, None, {}, False),
        (1, "local", {}, False),
        (1, "auto", {}, False),
        (1, None, {"actors": 1}, True),
        (1, None, {"actors": 2}, False),
        (1, None, {"min_actors": 1}, False),
        (1, None, {"max_actors": 2}, False),
    ],
)
def test_a_job_labels_in_its_process_if_it_is_small_and_asks_for_neither_ray_nor_actors(
    n_bytes: int | None, address: str | None, settings: dict[str, int], expected: bool
) -> None:
    assert is_in_process(n_bytes, address, **settings) == expected


def test_a_job_of_a_cluster_labels_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert not is_in_process(1)


def test_one_actor_has_the_machine_for_itself_and_computes_as_the_pool_would() -> None:
    asked = LabelSettings()
    pool = plan_pool([Node(64, 0)], asked)
    fitted = fit_small_job(pool, 1, None, asked)
    assert (pool.n_actors > 1, fitted.n_actors, fitted.min_actors, fitted.n_threads) == (True, 1, 1, local_cpus())
    assert (fitted.batch_size, fitted.dtype, fitted.device) == (pool.batch_size, pool.dtype, pool.device)


def test_beside_a_gpu_as_many_threads_decode_as_on_an_actor() -> None:
    asked = LabelSettings()
    pool = plan_pool([Node(64, 1)], asked)
    fitted = fit_small_job(pool, 1, None, asked)
    assert (fitted.in_process, fitted.device, fitted.n_threads) == (True, "cuda", pool.n_threads)
