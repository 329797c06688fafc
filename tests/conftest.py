"""What test suites share: one Ray, one S3 server, one tiny recognizer."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from pipeline import background
from pipeline.cluster.environment import LOCAL_RAY
from tests.fixtures.checkout import ROOT
from tests.fixtures.servers.fake_hub import EXAMPLES, FakeHub
from tests.fixtures.servers.faulty_s3 import FaultyS3

if TYPE_CHECKING:
    from tests.fixtures.servers.seaweedfs import ObjectStore

# Workers take the environment of the Ray they belong to, so the S3 server's address is set before Ray starts.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# On a laden machine Ray's head may not answer for a while; it is not lost for that.
os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "240")
os.environ.setdefault("RAY_health_check_failure_threshold", "20")
# As the command has it, also for clusters that tests start.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# As `model` has it, also where a test imports torch first: several processes share the cores.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Metrics are shown after so long.
os.environ.setdefault("RAY_metrics_report_interval_ms", "2000")
# The same examples in every run: a failure is seen again by whoever runs the test again. No example fails for its time.
settings.register_profile(
    "replayable", derandomize=True, print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("replayable")


# A shell that runs the tests in the background has them ignore Ctrl-C, and all commands that they start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def abandoned(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Whether the test left threads behind. For those of former tests a command in this process would end at once."""
    event = threading.Event()
    monkeypatch.setattr(background, "_has_abandoned", event)
    return event


@pytest.fixture(autouse=True)
def keeps_ctrl_c() -> Iterator[None]:
    """Whoever takes Ctrl-C gives it back; a program that calls tagstream would lose it otherwise."""
    before = signal.getsignal(signal.SIGINT)
    yield
    after = signal.signal(signal.SIGINT, before)
    assert after is before


@pytest.fixture(scope="session")
def coco_mini() -> Path:
    """Eighty real photographs, where the checkout has them beside it."""
    folder = Path(os.environ.get("TAGSTREAM_COCO_MINI", ROOT.parent / "shared" / "data" / "coco-mini"))
    if not folder.is_dir():
        pytest.skip(f"the photographs are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a recognizer with random weights, 56 px, made in a second and labelling hundreds of images a second."""
    from transformers import CLIPVisionConfig, LlamaConfig

    from tests.fixtures.recognizers.random_recognizer import random_recognizer

    recognizer = random_recognizer(
        vision=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=56,
            patch_size=14,
        ),
        text=LlamaConfig(
            vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
        ),
        seed=7,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    recognizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[FaultyS3]:
    """A local S3 server behind a proxy, which hands on all that is asked of it until a test tells it to fail."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = FaultyS3(server.get_host_and_port())
    endpoint.start()
    yield endpoint
    endpoint.stop()
    server.stop()


@pytest.fixture(scope="session")
def s3(s3_endpoint: FaultyS3) -> str:
    """URL of a bucket on the S3 server, which s3fs, pyarrow and Ray's workers find through the environment."""
    settings = {
        "AWS_ENDPOINT_URL": s3_endpoint.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        # Fewer than by default: tests wait until it is given up.
        "AWS_MAX_ATTEMPTS": "5",
    }
    os.environ.update(settings)
    import boto3

    boto3.client("s3").create_bucket(Bucket="corpus")
    return "s3://corpus"


@pytest.fixture(scope="session")
def real_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A bucket on SeaweedFS, which people run as their object store.

    The environment of this process stays as it is: `ObjectStore.options` are for s3fs in this process,
    `ObjectStore.environment` is for other processes.
    """
    # It takes a while to import.
    from tests.fixtures.servers.seaweedfs import running_seaweedfs

    with running_seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as store:
        yield store


@pytest.fixture
def faulty_s3(s3: str, s3_endpoint: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """The S3 server's endpoint for a test that makes it fail; calm again afterwards.

    This process waits a hundredth of what it would wait otherwise.
    """
    import fsspec
    from botocore.retries.standard import ExponentialBackoff

    from pipeline.storage import s3 as s3_module

    delay = ExponentialBackoff.delay_amount
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: delay(self, context) / 100)
    monkeypatch.setattr(s3_module, "_MAX_WAIT_S", 0.01)
    monkeypatch.setattr(s3_module, "_BODY_JITTER_S", 0.01)
    # No answer that comes is given up, on any machine; a test of none that ever comes sets less.
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 60}})
    s3_endpoint.calm()
    yield s3_endpoint
    s3_endpoint.calm()


@pytest.fixture(scope="session")
def shared_ray(s3: str) -> str:
    """The address for jobs of this process that are to label on a Ray: they share one. Others label without."""
    from pipeline.cluster.ray_session import start_ray, stop_ray

    start_ray(None, verbose=False)
    # Not before pytest has told all: a crash of Ray's core at its end would be taken for the last test's fault.
    atexit.register(stop_ray)
    return LOCAL_RAY


@pytest.fixture
def main() -> Iterator[Callable[[], None]]:
    """The program `tagstream` in this process, which goes on afterwards as it was."""
    from jobs import cli

    # A process that ends needs no collector.
    was_collecting, before = gc.isenabled(), signal.getsignal(signal.SIGTERM)
    yield cli.main
    signal.signal(signal.SIGTERM, before)
    if was_collecting:
        gc.enable()


@pytest.fixture
def s3_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes in bytes of what is read from S3 through files that are opened there."""
    import s3fs

    sizes: list[int] = []
    fetch = s3fs.core.S3File._fetch_range

    def counting(self: Any, start: int, end: int) -> bytes:
        content: bytes = fetch(self, start, end)
        sizes.append(len(content))
        return content

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", counting)
    return sizes


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that this process asks in place of the real one, with an empty cache; nobody is logged in."""
    from huggingface_hub import constants

    fake = FakeHub(EXAMPLES)
    # The environment is read when huggingface_hub is imported.
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", fake.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield fake
    fake.close()
