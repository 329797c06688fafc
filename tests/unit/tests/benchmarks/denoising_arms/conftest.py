"""The tiny recognizers of the model's tests."""

from __future__ import annotations

from tests.unit.model.conftest import build_recognizer, one_thread, recognizer

__all__ = ["build_recognizer", "one_thread", "recognizer"]
