"""Starting Ray."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from pipeline.cluster.ray_session import start_ray
from pipeline.errors import ClusterError


@pytest.mark.parametrize("n_failures", [1, 2])
def test_a_start_that_takes_ray_too_long_is_tried_once_more(monkeypatch: pytest.MonkeyPatch, n_failures: int) -> None:
    import ray

    calls: list[str] = []

    def init(address: str, **options: object) -> None:
        calls.append(address)
        if len(calls) <= n_failures:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    expected = pytest.raises(ClusterError, match="timed out during startup") if n_failures == 2 else nullcontext()
    with expected:
        start_ray(None, verbose=True)
    assert calls == ["local", "local"]
