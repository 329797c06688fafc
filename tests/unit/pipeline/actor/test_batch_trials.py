"""Trials of batches on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.images.preprocessing import ImagePreprocessor
from pipeline.actor.batch_trials import device_memory_bytes, make_photograph, try_batches
from pipeline.actor.labeler import Labeler, LabelerConfig
from pipeline.settings.labelling import LabelSettings

VIEW = np.zeros((4, 4, 3), np.uint8)


def test_the_image_of_the_search_can_be_decoded() -> None:
    assert ImagePreprocessor(image_size=224).view(make_photograph()).shape == (224, 224, 3)


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose memory nobody counts, where there is none."""
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 1000)


def test_a_trial_labels_whole_batches_and_counts_their_images(uncounted: None) -> None:
    sizes = []
    trial = try_batches(lambda views: sizes.append(len(views)), [VIEW] * 5)
    assert trial is not None
    assert (set(sizes), trial.peak_bytes) == ({5}, 1000)
    assert trial.images_per_s > 0


def test_a_trial_that_runs_out_of_memory_fits_not(uncounted: None) -> None:
    def label(views: list[np.ndarray]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    assert try_batches(label, [VIEW]) is None


def test_any_other_error_of_a_trial_is_raised(uncounted: None) -> None:
    def label(views: list[np.ndarray]) -> None:
        raise RuntimeError("no kernel image is available")

    with pytest.raises(RuntimeError, match="no kernel image"):
        try_batches(label, [VIEW])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
class TestOnCuda:
    @pytest.fixture(scope="class")
    def labeler(self) -> Labeler:
        config = LabelerConfig.of("demo", LabelSettings(), dtype="bfloat16", device="cuda", n_threads=2)
        return Labeler(config)

    def test_a_size_is_found(self, labeler: Labeler) -> None:
        found = labeler.find_batch_size(1.0)
        assert found in {2**power for power in range(10)}
        # The demo model has 4 million parameters: one image at a time it waits for its launches.
        assert found >= 16

    def test_memory_that_does_not_suffice_is_no_trial(self, labeler: Labeler) -> None:
        view = np.zeros((labeler.preprocessor.image_size,) * 2 + (3,), np.uint8)
        torch.cuda.set_per_process_memory_fraction(0.002)
        try:
            assert try_batches(labeler.label_single_views, [view] * 512) is None
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert try_batches(labeler.label_single_views, [view] * 4) is not None

    def test_the_memory_is_the_devices(self) -> None:
        assert device_memory_bytes() == torch.cuda.mem_get_info()[1]
