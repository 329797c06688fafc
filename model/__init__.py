"""The recognizer: vision encoder, projector, text decoder, one-shot sampling, checkpoints.

Names are imported when they are first used: torch and transformers take seconds, and a job's driver needs neither.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from model.choices import DTYPES, RANKINGS, SAMPLINGS

if TYPE_CHECKING:
    from model.images.opening import ImageDecodeError
    from model.images.preprocessing import ImagePreprocessor
    from model.nxtp.configuration import RecognizerConfig
    from model.nxtp.explanation import ExplainedLabel, Explanation
    from model.nxtp.modeling import RecognizerModel
    from model.nxtp.recognizer import Recognizer
    from model.ranking import Label

__all__ = [
    "DTYPES",
    "RANKINGS",
    "SAMPLINGS",
    "ExplainedLabel",
    "Explanation",
    "ImageDecodeError",
    "ImagePreprocessor",
    "Label",
    "Recognizer",
    "RecognizerConfig",
    "RecognizerModel",
]

# On CPUs the threads of torch wait for each other after every operation. By default they spin for milliseconds; where
# others need the CPUs too, that is time which the one they wait for would have needed: the demo's images took 26 s
# instead of 1. Spinning for some microseconds costs a quiet machine 8 % with so small a model, and none with a large
# one (tests/benchmarks/results/start-up-cpu.md). GNU's OpenMP reads this when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_MODULES = {
    "ExplainedLabel": "model.nxtp.explanation",
    "Explanation": "model.nxtp.explanation",
    "ImageDecodeError": "model.images.opening",
    "ImagePreprocessor": "model.images.preprocessing",
    "Label": "model.ranking",
    "Recognizer": "model.nxtp.recognizer",
    "RecognizerConfig": "model.nxtp.configuration",
    "RecognizerModel": "model.nxtp.modeling",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'model' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
