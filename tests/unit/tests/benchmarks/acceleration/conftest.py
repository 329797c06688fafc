"""The tiny recognizers of the model's tests."""

from __future__ import annotations

from tests.unit.model.conftest import build_recognizer, endless_recognizer, make_pixels, one_thread, recognizer

__all__ = ["build_recognizer", "endless_recognizer", "make_pixels", "one_thread", "recognizer"]
