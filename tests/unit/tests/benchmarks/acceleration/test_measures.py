"""Which tests the benchmark of a GPU runs."""

from __future__ import annotations

import pytest

from tests.fixtures.checkout import ROOT


def test_where_only_what_the_model_needs_is_installed_tests_of_the_pipeline_are_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Scripts of benchmarks import what lies beside them.
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    from tests.benchmarks.acceleration.measures import gpu_test_files

    all_files, none = gpu_test_files(has_packages=True)
    files, left_out = gpu_test_files(has_packages=False)
    assert none == []
    assert sorted(files + left_out) == all_files
    assert {path.split("/")[2] for path in files} == {"model", "tests"}
    assert {path.split("/")[2] for path in left_out} == {"pipeline"}
