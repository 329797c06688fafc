"""Why a model cannot be used, as one sentence: what was got, what was expected, what to do."""

from __future__ import annotations

TABLE_HINT = "`tagstream models` lists some that can be used"


class ModelUnusableError(OSError):
    """A model that cannot be had, or that cannot label. Its text is one whole sentence that names the model."""


class IncompleteModelError(ModelUnusableError):
    """A model of which files are missing."""
