"""How fast this machine is, measured on a tiny model for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.forecast import machine_speed
from pipeline.forecast.machine_speed import MachineSpeed, SpeedJob, SpeedRequest, make_images
from tests.fixtures.recognizers.hub_folders import save_hub_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speed")


@pytest.fixture(scope="module")
def measured(tiny_model: Path, folder: Path) -> MachineSpeed:
    with pytest.MonkeyPatch.context() as patch:
        # An eighth of the images: this is about what is measured, not how well.
        patch.setattr(machine_speed, "_N_IMAGES", 32)
        patch.setattr(machine_speed, "make_images", lambda: make_images(32))
        return SpeedJob(SpeedRequest(model=str(tiny_model), seconds=0.1, folder=str(folder))).run()


@pytest.mark.long
def test_every_stage_is_measured_in_its_units(measured: MachineSpeed) -> None:
    assert [(speed.what.split(",")[0], speed.unit) for speed in measured.speeds] == [
        ("read", "members/s"),
        ("read", "MB/s"),
        ("decode", "images/s"),
        ("decode", "images/s"),
        ("label", "images/s"),
        ("commit", "shards/s"),
        ("commit", "rows/s"),
    ]
    assert all(0 < speed.low <= speed.median <= speed.high for speed in measured.speeds)


@pytest.mark.long
def test_two_units_of_one_measurement_agree(measured: MachineSpeed) -> None:
    by_unit = {speed.unit: speed.median for speed in measured.speeds}
    mean_mb = sum(map(len, make_images(8))) / 8 / 1e6
    # A tar adds a header and fills up blocks.
    assert by_unit["MB/s"] / by_unit["members/s"] == pytest.approx(mean_mb, rel=0.1)
    assert by_unit["rows/s"] / by_unit["shards/s"] == pytest.approx(11_000)


@pytest.mark.long
def test_hardware_and_versions_are_told(measured: MachineSpeed) -> None:
    assert {"cpu", "cores", "memory"} <= measured.hardware.keys()
    assert {"python", "torch", "pyarrow"} <= measured.versions.keys()


def test_the_data_tells_how_many_image_tokens_a_photograph_costs_a_model_of_the_hub(
    tiny_model: Path, tmp_path: Path
) -> None:
    llava = save_hub_folder("llava", tmp_path / "llava")
    assert machine_speed._describe_data([bytes(2000)], str(llava)).endswith("/llava, 16 image tokens a photograph")
    assert machine_speed._describe_data([bytes(2000)], str(tiny_model)).endswith(f"2 KB each; model {tiny_model}")


@pytest.mark.long
def test_nothing_is_left_behind(measured: MachineSpeed, folder: Path) -> None:
    assert list(folder.iterdir()) == []


def test_the_data_is_the_same_every_time() -> None:
    assert make_images(3) == make_images(3)


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(StorageError, match=r"cannot write to /nowhere: .*No such file"):
        SpeedJob(SpeedRequest(folder="/nowhere")).run()
