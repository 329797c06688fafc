"""What a training job is asked to do; every name can stand in `tagstream train --config` and in a preset."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from model.choices import DTYPES
from model.training.denoising import Corruption
from model.training.optimization import Optimizer
from pipeline.errors import TagstreamError
from pipeline.naming.nouns import NOISE_WORDS
from pipeline.settings.toml_file import check_choice, check_range

# The seed is spread over steps and workers into one of 63 bits.
_MAX_SEED = 10**9
_MAX_WEIGHT_DECAY = 1e3
# The bytes, and the two special tokens.
_MIN_VOCAB_SIZE = 258
Form = Literal["restarting", "published"]
Targets = Literal["labels", "captions", "any"]
Prompts = Literal["fixed", "paraphrases"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSizes:
    """Sizes of a recognizer that is trained from scratch."""

    image_size: int = 128
    """Pixels."""
    patch_size: int = 16
    vision_width: int = 192
    vision_blocks: int = 6
    vision_heads: int = 3
    decoder_width: int = 192
    decoder_blocks: int = 2
    decoder_heads: int = 3
    vocab_size: int = 768
    """Tokens of the vocabulary that is learned from the source's labels; fewer where they need fewer."""

    def __post_init__(self) -> None:
        for name in ("patch_size", "vision_width", "vision_blocks", "vision_heads", "decoder_width", "decoder_blocks"):
            check_range(name, getattr(self, name), 1)
        check_range("decoder_heads", self.decoder_heads, 1)
        check_range("image_size", self.image_size, self.patch_size)
        check_range("vocab_size", self.vocab_size, _MIN_VOCAB_SIZE)
        for half in ("vision", "decoder"):
            width, heads = getattr(self, f"{half}_width"), getattr(self, f"{half}_heads")
            if width % (2 * heads):
                raise TagstreamError(f"{half}_width is {width}; expected a multiple of twice its {heads} heads")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """Settings of `tagstream train`."""

    steps: int = 1000
    batch_size: int = 64
    """Images a step, of all workers and micro-batches together."""
    micro_batch_size: int = 0
    """Images a worker computes at once; 0 is its whole share of the batch."""
    optimizer: Optimizer = "adamw"
    """adamw; or muon: Muon for the matrices of the blocks, AdamW for all else."""
    learning_rate: float = 1e-3
    """The peak of the learning rate. After the warm-up it falls to zero along half a cosine."""
    warmup_steps: int = 100
    weight_decay: float = 0.1
    """Weight decay of matrices. Biases, norms and embeddings do not decay."""
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    precision: str = "auto"
    """Number type of the forward pass: float32, bfloat16 or float16; auto is bfloat16 on GPUs and float32 on CPUs.
    Weights and optimizer are float32."""
    objective: str = "restarting"
    """restarting: labels are learned as they are sampled; published: the public code's form."""
    targets: str = "any"
    """labels: the given labels; captions: nouns of the captions; any: labels where given, else nouns."""
    noise_words: tuple[str, ...] = NOISE_WORDS
    """Nouns that are never a label."""
    prompts: str = "paraphrases"
    """fixed: the model's own prompt; paraphrases: one of ten an image."""
    max_labels: int = 32
    """Labels of an image that are learned in a step; of more, a random choice."""
    trainable: tuple[str, ...] = ("*",)
    """Shell patterns of the names of the parameters that learn."""
    embedding_rows: tuple[str, ...] = ()
    """Tokens; where given, no other row of the embedding learns."""
    image_tokens: int = 0
    """Tokens that the decoder reads of an image, in training and in evaluation: the model's image tokens are merged
    into so many. 0 is all of them."""
    corruption: Corruption = field(default_factory=Corruption)
    """Denoising; all zero is none."""
    model: ModelSizes = field(default_factory=ModelSizes)
    """Used where no model is given to start from."""
    shuffle_buffer: int = 4000
    """Encoded images held in memory a worker, to draw from at random."""
    log_every: int = 10
    """Steps a row of the metrics."""
    eval_every: int = 500
    eval_images: int = 1000
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    """The last ones; the best is kept besides."""
    dtype: str = "float32"
    """Number type of the weights in the finished folder."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, ("auto", *DTYPES))
        check_choice("dtype", self.dtype, DTYPES)
        check_choice("objective", self.objective, get_args(Form))
        check_choice("optimizer", self.optimizer, get_args(Optimizer))
        check_choice("targets", self.targets, get_args(Targets))
        check_choice("prompts", self.prompts, get_args(Prompts))
        for name in ("steps", "batch_size", "max_labels", "log_every", "eval_every", "eval_images", "checkpoint_every"):
            check_range(name, getattr(self, name), 1)
        check_range("keep_checkpoints", self.keep_checkpoints, 1)
        for name in ("micro_batch_size", "warmup_steps", "clip_norm", "shuffle_buffer", "image_tokens"):
            check_range(name, getattr(self, name), 0)
        check_range("seed", self.seed, 0, _MAX_SEED)
        for name in ("learning_rate", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise TagstreamError(f"{name} is {getattr(self, name)}; expected more than 0")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise TagstreamError(f"{name} is {getattr(self, name)}; expected 0 or more and less than 1")
        check_range("weight_decay", self.weight_decay, 0, _MAX_WEIGHT_DECAY)
        if not self.trainable:
            raise TagstreamError("trainable is empty: nothing would learn; expected patterns of parameter names")
        if self.eval_every % self.checkpoint_every:
            raise TagstreamError(
                f"eval_every is {self.eval_every}, checkpoint_every {self.checkpoint_every}; expected a multiple, "
                "so that the best step has a checkpoint"
            )
        for name in ("mask_share", "noise_share", "label_share", "picture_share"):
            check_range(name, getattr(self.corruption, name), 0, 1)
        check_range("mask_share + noise_share", self.corruption.mask_share + self.corruption.noise_share, 0, 1)
        check_range("noise_std", self.corruption.noise_std, 0)
        check_range("weight", self.corruption.weight, 0)

    def described(self) -> dict[str, Any]:
        """All settings as plain values, for json.

        All image tokens and no spoilt pictures are left out: a training that began before there was a choice goes on.
        """
        described = asdict(self)
        if not self.corruption.picture_share:
            del described["corruption"]["picture_share"]
        if not self.image_tokens:
            del described["image_tokens"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in described.items()}
