"""The recognizer: vision encoder, projector, text decoder, one-shot sampling, checkpoints."""

from model.configuration import RecognizerConfig
from model.modeling import RecognizerModel
from model.preprocessing import ImageDecodeError, ImagePreprocessor
from model.ranking import RANKINGS, Label
from model.recognizer import DTYPES, SAMPLINGS, Recognizer

__all__ = [
    "DTYPES",
    "RANKINGS",
    "SAMPLINGS",
    "ImageDecodeError",
    "ImagePreprocessor",
    "Label",
    "Recognizer",
    "RecognizerConfig",
    "RecognizerModel",
]
