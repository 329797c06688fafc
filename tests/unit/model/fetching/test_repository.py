"""Models of the hub: what is fetched, when, and every sentence that refuses one."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from model.fetching import repository
from model.fetching.hub_name import HubName
from model.fetching.known_models import similar_names
from model.fetching.refusal import ModelUnusableError
from model.fetching.repository import download, pin
from tests.fixtures.servers.fake_hub import EXAMPLES, MEMBER, READER, FakeHub, commit_of

TINY, V1 = (EXAMPLES["org/tiny"].revisions[name] for name in ("main", "v1"))


def named(text: str) -> HubName:
    name = HubName.parse(text)
    assert name is not None
    return name


def pinned(text: str) -> HubName:
    return named(pin(named(text)).name)


def refused(text: str) -> str:
    """The sentence with which a model is refused."""
    with pytest.raises(ModelUnusableError) as caught:
        pin(named(text))
    return str(caught.value)


def unreachable(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.close()
    monkeypatch.setattr(hub, "close", lambda: None)


class TestRevision:
    @pytest.mark.parametrize(("given", "commit"), [("org/tiny", TINY), ("org/tiny@v1", V1), (f"org/tiny@{V1}", V1)])
    def test_a_branch_a_tag_and_a_commit_become_the_commit(self, hub: FakeHub, given: str, commit: str) -> None:
        assert pin(named(given)).name == f"org/tiny@{commit}"

    def test_a_pinned_name_stays_what_it_was_when_the_branch_moves(self, hub: FakeHub) -> None:
        before = pinned("org/tiny")
        moved = {**hub.models["org/tiny"].files, "model.safetensors": b"moved"}
        hub.models["org/tiny"] = type(hub.models["org/tiny"])(moved, former={"old": EXAMPLES["org/tiny"].files})
        assert (download(before) / "model.safetensors").read_bytes() == b"weights"
        assert pinned("org/tiny").revision == commit_of(moved) != before.revision

    def test_no_weights_are_fetched_to_pin_a_name(self, hub: FakeHub) -> None:
        pin(named("org/tiny"))
        assert dict(hub.sent) == {"config.json": 1}


class TestDownload:
    def test_only_what_is_read_of_a_model_is_fetched(self, hub: FakeHub) -> None:
        folder = download(pinned("org/tiny"))
        wanted = {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "chat_template.jinja"}
        assert {path.name for path in folder.rglob("*")} == wanted
        assert set(hub.sent) == wanted

    def test_those_who_ask_at_once_wait_for_one_download_of_each_file(self, hub: FakeHub) -> None:
        name = pinned("org/tiny")
        with ThreadPoolExecutor(4) as pool:
            folders = set(pool.map(lambda _: download(name), range(4)))
        assert len(folders) == 1
        assert set(hub.sent.values()) == {1}

    def test_a_body_that_breaks_off_is_read_on_from_there(self, hub: FakeHub) -> None:
        hub.cuts_after = 3
        assert (download(pinned("org/tiny")) / "model.safetensors").read_bytes() == b"weights"
        assert hub.sent["model.safetensors"] == 2

    def test_a_model_of_which_files_are_missing_here_is_fetched(self, hub: FakeHub) -> None:
        name = pinned("org/tiny")
        assert pinned(str(name)) == name
        assert (download(name) / "model.safetensors").is_file()

    def test_a_model_that_is_here_needs_no_hub(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        name = pinned("org/tiny")
        folder = download(name)
        unreachable(hub, monkeypatch)
        assert download(pinned(str(name))) == folder

    def test_a_branch_is_that_of_the_cache_where_the_hub_is_out_of_reach_and_that_is_told(
        self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        download(pinned("org/tiny"))
        hub.status = 503
        assert pinned("org/tiny").revision == TINY
        assert f"org/tiny@{TINY} is taken from this machine's cache" in caplog.text

    def test_a_gated_model_is_fetched_with_the_token_of_an_account_that_may(
        self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", MEMBER)
        assert (download(pinned("org/gated")) / "model.safetensors").is_file()

    def test_a_disk_that_fills_meanwhile_is_told(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*arguments: object, **options: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(repository, "snapshot_download", fail)
        with pytest.raises(
            ModelUnusableError, match=r"is too full: org/tiny needs more than is free; make room, or set"
        ):
            download(named(f"org/tiny@{TINY}"))


class TestRefusals:
    """The whole of each sentence: what a user reads."""

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            (
                "org/tiny@v9",
                "org/tiny has no revision v9; expected a commit or one of main, v1",
            ),
            (
                "Qwen/Qwen3-VL-2B-Instrct",
                "there is no folder Qwen/Qwen3-VL-2B-Instrct here, and the hub has no public model "
                "Qwen/Qwen3-VL-2B-Instrct; check the name (near it: "
                + ", ".join(similar_names("Qwen/Qwen3-VL-2B-Instrct"))
                + "), or log in with HF_TOKEN if the model is private; `tagstream models` lists some that can be used",
            ),
            (
                "org/private",
                "there is no folder org/private here, and the hub has no public model org/private; check the name, or "
                "log in with HF_TOKEN if the model is private; `tagstream models` lists some that can be used",
            ),
            (
                "org/gated",
                "org/gated is gated; accept its licence at {url}/org/gated and set HF_TOKEN to a token of that account "
                "({url}/settings/tokens); `tagstream models` lists some that need no account",
            ),
            (
                "org/pickled",
                "org/pickled has its weights only as pickles (pytorch_model.bin), and reading those can run code; "
                "expected model.safetensors: take a revision or a model that has it, or write it from weights that you "
                "trust with save_pretrained of transformers; `tagstream models` lists some that can be used",
            ),
            (
                "org/weightless",
                "org/weightless holds no weights; expected model.safetensors, found config.json, tokenizer.json; "
                "`tagstream models` lists some that can be used",
            ),
            (
                "org/gguf",
                "there is no model at org/gguf; expected a folder with config.json and *.safetensors, found README.md, "
                "model-q4.gguf; `tagstream models` lists some that can be used",
            ),
            (
                "org/moondream",
                "org/moondream needs code from the hub (class HfMoondream), which tagstream never runs; expected a "
                "model whose class transformers has; `tagstream models` lists some that can be used",
            ),
        ],
    )
    def test_a_model_that_cannot_be_used_is_refused_before_its_weights_are_fetched(
        self, hub: FakeHub, name: str, sentence: str
    ) -> None:
        assert refused(name) == sentence.format(url=hub.url)
        assert hub.sent["model.safetensors"] == 0

    def test_a_model_that_a_token_may_not_see_is_told(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", READER)
        assert (
            "the hub shows no model org/private; check the name, or see whether the token in HF_TOKEN may read it"
            in (refused("org/private"))
        )

    def test_a_gated_model_whose_licence_was_not_accepted_is_told(
        self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", READER)
        assert refused("org/gated").startswith(
            "org/gated is gated; the token in HF_TOKEN has no access to it yet: accept its licence at "
            f"{hub.url}/org/gated with the same account"
        )

    def test_a_token_that_the_hub_does_not_know_is_told(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_expired")
        assert refused("org/tiny") == (
            "the hub does not accept the token in HF_TOKEN, with which org/tiny was asked for; make a new token at "
            f"{hub.url}/settings/tokens, or go without: models that are public and not gated need none"
        )

    def test_without_a_network_it_says_where_a_model_may_come_from(
        self, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unreachable(hub, monkeypatch)
        reason = re.escape(f"the hub at {hub.url} does not answer (") + r"\w+: .*refused.*"
        cache = f") and the cache {tmp_path / 'hub'} does not have all of org/tiny; "
        rest = "try again when it does, or give a local copy in its place"
        assert re.fullmatch(reason + re.escape(cache + rest), refused("org/tiny"))

    def test_a_hub_in_trouble_is_told(self, hub: FakeHub) -> None:
        hub.status = 503
        assert f"the hub at {hub.url} does not answer (HfHubHTTPError: Server error '503 " in refused("org/tiny")

    def test_any_other_answer_is_told_as_it_is(self, hub: FakeHub) -> None:
        hub.status = 403
        assert re.fullmatch(
            rf"the hub does not give org/tiny \(HfHubHTTPError: .*403 Forbidden.*\); see {hub.url}/org/tiny",
            refused("org/tiny"),
        )

    def test_offline_mode_is_told(self, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert refused("org/tiny") == (
            f"HF_HUB_OFFLINE is set and the cache {tmp_path / 'hub'} does not have all of org/tiny; unset it, fetch "
            "the model where there is a network (hf download org/tiny), or give a local copy in its place"
        )

    def test_a_model_in_the_cache_that_cannot_label_is_told_without_a_network(
        self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository.snapshot_download("org/text")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert refused("org/text").startswith("org/text is a model of text (Qwen3ForCausalLM) that sees no images")

    def test_a_disk_without_room_is_told_before_the_download(self, hub: FakeHub, tmp_path: Path) -> None:
        expected = re.escape(f"the disk of {tmp_path / 'hub'} is too full: org/large needs 10,000,000.00 GB more, ")
        rest = r"[\d.,]+ GB are free; make room, or set HF_HOME to a folder on a larger disk"
        assert re.fullmatch(expected + rest, refused("org/large"))
        assert hub.sent["model.safetensors"] == 0

    def test_what_is_in_the_cache_needs_no_room(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        download(pinned("org/tiny"))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
        assert pinned("org/tiny").revision == TINY
