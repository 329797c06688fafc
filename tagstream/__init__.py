"""Bulk open-vocabulary tagging of image corpora.

>>> import tagstream
>>> recognizer = tagstream.Recognizer.from_pretrained("demo")
>>> recognizer.label(["photo.jpg"], top_k=5)
>>> tagstream.open_store("tags").sql("SELECT * FROM labels")

The names in `__all__` are loaded when they are asked for, so the import itself takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tagstream.own_packages import check_own_packages

# Public names, and the modules that have them.
_MODULES = {
    "Label": "model.ranking",
    "LabelJob": "pipeline.labelling.job",
    "LabelRequest": "pipeline.labelling.request",
    "LabelSettings": "pipeline.settings.labelling",
    "Recognizer": "model.nxtp.recognizer",
    "TagstreamError": "pipeline.errors",
    "open_store": "pipeline.catalog.views",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tagstream' has no attribute {name!r}; it has {', '.join(_MODULES)}")
    check_own_packages()
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
