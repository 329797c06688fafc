"""Bringing a model's folder onto a node's disk."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from model.folder import PREPROCESSOR_FILE
from pipeline.errors import ModelError, StoreError
from pipeline.storage import model_cache as model_store
from pipeline.storage.files import open_filesystem
from pipeline.storage.model_cache import cache_folder, fetch_model, model_name
from pipeline.store.store import check_run_name

FILES = {"config.json": b"{}", PREPROCESSOR_FILE: b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TAGSTREAM_CACHE", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture(params=["file", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a model that has to be fetched."""
    url = f"file://{tmp_path}/remote"
    if request.param == "s3":
        url = f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    put(f"{url}/tiny", FILES)
    return f"{url}/tiny"


def put(url: str, files: dict[str, bytes]) -> None:
    filesystem, path = open_filesystem(url)
    filesystem.makedirs(path, exist_ok=True)
    for name, content in files.items():
        filesystem.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(f"{path}/{name}", content)


def content(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def folders(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


class Downloads:
    """A filesystem that counts what is downloaded from it, and may be full."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.filesystem: Any = None
        self.is_full = False

    def open(self, url: str) -> tuple[Any, str]:
        self.filesystem, path = open_filesystem(url)
        return self, path

    def find(self, *arguments: Any, **options: Any) -> Any:
        return self.filesystem.find(*arguments, **options)

    def get_file(self, remote: str, local: str) -> None:
        self.names.append(Path(remote).name)
        if self.is_full and len(self.names) == 3:
            Path(local).write_bytes(b"half")
            raise OSError("No space left on device")
        self.filesystem.get_file(remote, local)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> Downloads:
    downloads = Downloads()
    monkeypatch.setattr(model_store, "open_filesystem", downloads.open)
    return downloads


def test_a_folder_on_this_machine_is_used_where_it_lies(tmp_path: Path, cache: Path) -> None:
    put(str(tmp_path / "tiny"), FILES)
    assert fetch_model(str(tmp_path / "tiny")) == str(tmp_path / "tiny")
    assert not cache.exists()


def test_a_remote_model_is_fetched_whole_and_once(remote: str, cache: Path, downloads: Downloads) -> None:
    first, second = fetch_model(remote), fetch_model(f"{remote}/")
    assert first == second
    assert (folders(cache), content(first)) == ([Path(first)], FILES)
    assert sorted(downloads.names) == sorted(FILES)


def test_a_model_that_changed_gets_another_folder(remote: str, cache: Path) -> None:
    first = fetch_model(remote)
    put(remote, {"model.safetensors": b"WEIGHTS"})
    second = fetch_model(remote)
    assert (content(first)["model.safetensors"], content(second)["model.safetensors"]) == (b"weights", b"WEIGHTS")
    assert len(folders(cache)) == 2


def test_only_what_a_model_consists_of_is_fetched(remote: str) -> None:
    put(remote, {"optimizer.bin": b"?", "checkpoint-1/config.json": b"?", "README.md": b"?"})
    assert content(fetch_model(remote)) == FILES


def test_a_download_that_fails_leaves_nothing_and_the_next_one_works(
    remote: str, cache: Path, downloads: Downloads
) -> None:
    downloads.is_full = True
    with pytest.raises(StoreError, match=r"cannot read the model .*tiny: No space left on device"):
        fetch_model(remote)
    assert folders(cache) == []
    downloads.is_full = False
    assert content(fetch_model(remote)) == FILES


def test_those_who_ask_at_the_same_time_wait_for_one_download(remote: str, downloads: Downloads) -> None:
    start = threading.Barrier(4)

    def fetch(_: int) -> str:
        start.wait()
        return fetch_model(remote)

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(fetch, range(4)))
    assert len(found) == 1
    assert sorted(downloads.names) == sorted(FILES)


@pytest.mark.parametrize("nested", [False, True])
def test_a_url_without_a_model_is_an_error_that_says_what_was_expected(remote: str, nested: bool) -> None:
    url = f"{remote}-none"
    if nested:
        put(f"{url}/below", FILES)
    with pytest.raises(ModelError, match=r"there is no model at .*-none; expected a folder with config\.json"):
        fetch_model(url)


@pytest.mark.parametrize("model", ["nothing", "./nothing", "/nowhere/at/all", "a/b/c", "../up", "empty"])
def test_a_folder_without_a_model_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=f"there is no model {model}: "):
        fetch_model(model)


@pytest.mark.parametrize("error", ["LocalEntryNotFoundError", "OfflineModeIsEnabled"])
def test_a_hub_id_that_cannot_be_had_is_an_error_with_the_reason(monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def fail(name: str) -> str:
        raise getattr(errors, error)(f"{name} is\nnot to be had")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError, match="there is no model someone/something: someone/something is not to be had"):
        fetch_model("someone/something")


def test_a_hub_id_is_its_folder_in_the_hubs_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name: f"/hub/{name}")
    assert fetch_model("someone/something") == "/hub/someone/something"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("nxtp", "nxtp"),
        ("models/nxtp/", "nxtp"),
        ("s3://bucket/models/nxtp-1.8B", "nxtp-1.8B"),
        ("org/name", "name"),
        (".", "model"),
        ("..", "model"),
        ("/", "model"),
        ("modèle 1", "mod-le-1"),
        ("_private", "private"),
        ("-x", "x"),
        ("日本", "model"),
        ("x" * 200, "x" * 60),
    ],
)
def test_a_models_name_can_be_part_of_a_runs_name(model: str, name: str) -> None:
    assert model_name(model) == name
    check_run_name(f"{name}-0123456789ab")
