"""Bringing a model's folder onto a node's disk."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.folder import PREPROCESSOR_FILE
from model.hub.options import HubOptions
from pipeline.errors import ModelError, StoreError
from pipeline.storage import model_cache as model_store
from pipeline.storage.files import open_filesystem
from pipeline.storage.model_cache import (
    cache_folder,
    fetch_model,
    load_preprocessor,
    load_recognizer,
    load_tagger,
    model_name,
    pin_model,
)
from pipeline.store.store import check_run_name
from tests.fixtures.recognizers.hub_folders import save_hub_folder
from tests.fixtures.servers.fake_hub import FakeHub

FILES = {
    "config.json": b'{"model_type": "nxtp-recognizer"}',
    PREPROCESSOR_FILE: b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "tokenizer.model": b"pieces",
    "chat_template.jinja": b"{{ messages }}",
}


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

    def cat_file(self, path: str) -> Any:
        return self.filesystem.cat_file(path)

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
    put(remote, {"optimizer.bin": b"?", "checkpoint-1/config.json": b"?", "README.md": b"?", "code.py": b"?"})
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


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    remote: str, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(
        ModelError, match=r"is too full: .*tiny needs 0\.00 GB more, .*; make room, or set TAGSTREAM_CACHE"
    ):
        fetch_model(remote)
    assert downloads.names == []


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
    with pytest.raises(ModelError, match=f"there is no model (at )?{model}[:;] "):
        fetch_model(model)


def test_a_remote_model_in_parts_is_fetched_with_all_of_them(remote: str) -> None:
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.dumps({"weight_map": dict(zip("ab", parts, strict=True))}).encode()
    put(remote, {parts[0]: b"1", "model.safetensors.index.json": index})
    with pytest.raises(ModelError, match=rf"lacks parts of its weights .*\({parts[1]}\)"):
        fetch_model(remote)
    put(remote, {parts[1]: b"2"})
    assert {*parts, "model.safetensors.index.json"} <= content(fetch_model(remote)).keys()


def test_a_remote_model_that_cannot_label_is_refused_before_its_weights_are_fetched(
    remote: str, downloads: Downloads
) -> None:
    put(remote, {"config.json": b'{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}'})
    for use in (pin_model, fetch_model):
        with pytest.raises(ModelError, match=r"tiny is a model of text \(Qwen3ForCausalLM\) that sees no images"):
            use(remote)
    assert downloads.names == []


def test_a_model_of_the_hub_is_its_folder_in_the_hubs_cache(hub: FakeHub) -> None:
    assert content(fetch_model("org/tiny@v1"))["model.safetensors"] == b"WEIGHTS"


def test_what_the_hub_does_not_give_is_an_error_with_its_sentence(hub: FakeHub) -> None:
    with pytest.raises(ModelError, match=r"^org/tiny has no revision v9; expected a commit or one of main, v1$"):
        fetch_model("org/tiny@v9")


class TestPinning:
    """Names that mean the same elsewhere and later."""

    def test_a_folder_gets_its_absolute_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put(str(tmp_path / "tiny"), FILES)
        monkeypatch.chdir(tmp_path)
        assert pin_model("tiny").name == str(tmp_path / "tiny")

    def test_a_url_and_the_demo_model_stay_as_they_are(self, remote: str) -> None:
        assert (pin_model(remote).name, pin_model("demo").name) == (remote, "demo")

    def test_a_model_of_the_hub_gets_its_commit(self, hub: FakeHub) -> None:
        commits = hub.models["org/tiny"].revisions
        assert pin_model("org/tiny").name == f"org/tiny@{commits['main']}"
        assert pin_model("org/tiny@v1").name == f"org/tiny@{commits['v1']}"

    def test_a_folder_goes_before_a_model_of_the_hub(
        self, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(str(tmp_path / "org" / "tiny"), FILES)
        monkeypatch.chdir(tmp_path)
        assert pin_model("org/tiny").name == str(tmp_path / "org" / "tiny")

    def test_what_is_still_to_be_fetched_is_known(self, hub: FakeHub, remote: str) -> None:
        of_hub = sum(len(hub.models["org/tiny"].files[name]) for name in ("model.safetensors", "tokenizer.json"))
        assert pin_model(remote).missing_bytes == sum(map(len, FILES.values()))
        assert pin_model("org/tiny").missing_bytes > of_hub
        for model in (remote, "org/tiny"):
            fetch_model(model)
            assert pin_model(model).missing_bytes == 0

    def test_the_page_of_a_model_is_no_name_but_tells_it(self) -> None:
        page = "https://huggingface.co/org/tiny/tree/main"
        with pytest.raises(ModelError, match=rf"^{page} is a page; expected the model's name, --model org/tiny$"):
            pin_model(page)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("nxtp", "nxtp"),
        ("models/nxtp/", "nxtp"),
        ("s3://bucket/models/nxtp-1.8B", "nxtp-1.8B"),
        ("org/name", "name"),
        ("org/name@0123456789abcdef", "name"),
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


@pytest.mark.parametrize("kind", ["recognizer", pytest.param("llava", marks=pytest.mark.long)])
def test_what_decodes_images_is_known_without_the_weights(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    hub = HubOptions(max_view_pixels=1234)
    model = str(tiny_model if kind == "recognizer" else save_hub_folder(kind, tmp_path / kind))
    assert load_preprocessor(model, hub) == load_tagger(model, "cpu", "float32", hub).preprocessor


def load_tagger_of(folder: Path) -> None:
    load_tagger(str(folder), "cpu", "float32", HubOptions())


def load_recognizer_of(folder: Path) -> None:
    load_recognizer(str(folder), "cpu")


@pytest.mark.parametrize(
    ("kind", "load"),
    [("recognizer", load_recognizer_of), ("recognizer", load_tagger_of), ("llava", load_tagger_of)],
)
def test_weights_that_were_cut_off_are_told_from_a_fault_of_the_program(
    kind: str, load: Callable[[Path], None], tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    _ = shutil.copytree(tiny_model, folder) if kind == "recognizer" else save_hub_folder(kind, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=rf"^the weights of {folder} cannot be read \(.*\); copy or download them"):
        load(folder)


@pytest.mark.parametrize("load", [load_recognizer_of, load_tagger_of])
def test_weights_that_do_not_fit_are_told_from_a_fault_of_the_program(
    load: Callable[[Path], None], tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=rf"^{folder} cannot be loaded: the weights in .* do not fit its config"):
        load(folder)
