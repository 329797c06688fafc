"""What a user is told of an error in a worker."""

from __future__ import annotations

import pytest
from ray.exceptions import RayTaskError

from pipeline.dataflow.ray_errors import as_sentence
from pipeline.errors import ModelError, StorageError, TagstreamError

# What Ray Data adds to every error of a task.
ADVICE = """
Failed to apply UDF transform after 1/1 attempts (total backoff 0.0s).
To change retry attempts, backoff, or which errors are retried, configure `ray.data.DataContext.get_current()` [...]"""


def _from_worker(error: Exception, text: str = "") -> Exception:
    raised: Exception = RayTaskError("read", f"Traceback:\n{text}{ADVICE}", cause=error).as_instanceof_cause()
    return raised


@pytest.mark.parametrize("kind", [StorageError, ModelError])
def test_an_error_of_the_project_is_told_as_it_was_raised(kind: type[TagstreamError]) -> None:
    error = as_sentence(_from_worker(kind(f"cannot read shard 5{ADVICE}")))
    assert (type(error), str(error)) == (kind, "cannot read shard 5")


def test_an_error_that_came_only_as_text_is_known_by_its_name() -> None:
    error = as_sentence(_from_worker(RuntimeError("wrapped"), "pipeline.errors.StorageError: cannot read shard 5"))
    assert (type(error), str(error)) == (StorageError, "cannot read shard 5")


def test_of_another_error_the_last_line_is_told() -> None:
    error = as_sentence(_from_worker(ValueError("odd"), "  at work\nValueError: odd"))
    assert str(error) == "a worker failed: ValueError: odd; run with --verbose for its whole story"
