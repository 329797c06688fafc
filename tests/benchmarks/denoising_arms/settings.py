"""What all trials of a comparison share; results of other settings are not comparable."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Steps of the optimizer, pictures a step, and the learning rate: a linear warm-up, then half a cosine to zero."""

    steps: int
    views: int
    peak_rate: float
    warmup_steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ScratchSettings:
    """Of small recognizers that are trained from scratch."""

    steps: int = 500
    plain_steps: int = 150
    """The first steps, which every form takes plain: a recognizer that sees nothing yet has nothing to denoise."""
    views: int = 64
    """Pictures a step, whatever the form."""
    train_scenes: int = 6000
    test_scenes: int = 300
    pictograms: int = 40
    vocab_size: int = 1024
    patch_px: int = 8
    width: int = 96
    vision_blocks: int = 2
    decoder_blocks: int = 1

    @property
    def schedule(self) -> Schedule:
        return Schedule(steps=self.steps, views=self.views, peak_rate=6e-3, warmup_steps=15)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShippedSettings:
    """Of the model that comes along, which goes on learning."""

    steps: int = 250
    views: int = 32
    """Pictures a step, whatever the form."""
    peak_rate: float = 5e-4
    """A third of the peak of the preset that the model was trained with."""
    warmup_steps: int = 20
    train_scenes: int = 8000
    test_scenes: int = 600

    @property
    def schedule(self) -> Schedule:
        return Schedule(steps=self.steps, views=self.views, peak_rate=self.peak_rate, warmup_steps=self.warmup_steps)


Settings = ScratchSettings | ShippedSettings
