"""Tiny models of the hub in folders of their own, and recognizers made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from model.hub.recognizer import HubRecognizer
from tests.fixtures.recognizers.hub_folders import save_hub_folder


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model of this architecture, made once."""
    root = tmp_path_factory.mktemp("hub")

    def find(architecture: str) -> Path:
        folder = root / architecture
        return folder if folder.is_dir() else save_hub_folder(architecture, folder)

    return find


@pytest.fixture(scope="session")
def hub_recognizer(hub_folder: Callable[[str], Path]) -> Callable[[str], HubRecognizer]:
    """The recognizer of a tiny model, loaded once, with the options by default."""
    loaded: dict[str, HubRecognizer] = {}

    def load(architecture: str) -> HubRecognizer:
        if architecture not in loaded:
            loaded[architecture] = HubRecognizer.from_pretrained(hub_folder(architecture))
        return loaded[architecture]

    return load
