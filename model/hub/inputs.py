"""Pictures and prompt as a vision-language model takes them: its own processor, with still pictures alone.

The picture backend is fixed: transformers takes torchvision where it is installed and Pillow elsewhere, and the two
differ by a grey level or two, so that one run would label differently on different workers.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, BatchFeature
from transformers.models.auto.processing_auto import processor_class_from_name

from model.hub.options import HubOptions
from model.hub.prompt import Prompt

# Few image tokens: what hub models ship makes hundreds or thousands of a photograph, and each is prefilled and read by
# every branch. By an attribute that image processors of a kind have.
_TILES_OFF = ("do_image_splitting", "crop_to_patches", "do_pan_and_scan")
_TOKENS_WANTED = 256
# Pictures that a model with a square view makes the same of: heights and widths.
_SHAPES = ((384, 384), (384, 768), (768, 384))


class _NoVideos:
    """Stands in for a video processor, which needs torchvision: labels are of still pictures."""

    model_input_names: tuple[str, ...] = ()
    merge_size = 2


def load_processor(folder: Path, options: HubOptions) -> Any:
    """The model's processor, padding on the left, its image processor of the backend that the options name.

    Raises ImportError, with what to install, where the processor needs a package that is missing.
    """
    description = json.loads(_processor_config(folder).read_text())
    kind = processor_class_from_name(description.get("processor_class") or "")
    takes = set() if kind is None else set(inspect.signature(kind.__init__).parameters)
    try:
        if "video_processor" in takes and "feature_extractor" not in takes:
            processor = _still_processor(kind, folder, {name: description[name] for name in takes & set(description)})
        else:
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except ImportError as error:
        raise ImportError(
            f"the model's processor needs a package that is missing: pip install 'tagstream[hub]'; {_one_line(error)}"
        ) from error
    processor.image_processor = AutoImageProcessor.from_pretrained(
        folder, backend=options.image_backend, trust_remote_code=False
    )
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    processor.tokenizer.padding_side = "left"
    return processor


def _still_processor(kind: Any, folder: Path, settings: Mapping[str, Any]) -> Any:
    """A processor of this class with a stand-in for the one of videos."""

    class StillProcessor(kind):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name == "video_processor":
                return type(argument)
            return super().check_argument_for_proper_class(argument_name, argument)

    # transformers looks things up by the class's name.
    StillProcessor.__name__ = kind.__name__
    parts = {
        "image_processor": AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False),
        "tokenizer": AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        "video_processor": _NoVideos(),
        "chat_template": _chat_template(folder),
    }
    return StillProcessor(**{**settings, **parts})


def resolve_image_options(image_processor: Any, options: HubOptions) -> dict[str, Any]:
    """Options of every call of this image processor: those that keep tokens few, and before them those asked for.

    They are given to each call, since neither attributes nor the folder's description have the last word: Qwen2-VL's
    folders bound the pixels by names that go before `size`, and InternVL's processor asks for tiles in every call.

    Raises ValueError where an option is none of the image processor's.
    """
    unknown = [name for name in options.image_options if not hasattr(image_processor, name)]
    if unknown:
        known = ", ".join(sorted(name for name in image_processor.to_dict() if not name.startswith("_")))
        raise ValueError(f"image_options has {', '.join(unknown)}; {type(image_processor).__name__} has {known}")
    return few_tokens(image_processor) | dict(options.image_options)


def few_tokens(image_processor: Any) -> dict[str, Any]:
    """Options of an image processor that keep image tokens few: one tile, or as many pixels as 256 tokens show."""
    options: dict[str, Any] = {name: False for name in _TILES_OFF if hasattr(image_processor, name)}
    size, merge = getattr(image_processor, "size", None), getattr(image_processor, "merge_size", None)
    if merge and size is not None and getattr(size, "longest_edge", None):
        # Qwen's: the edges are numbers of pixels, and so many patches become one token.
        most = _TOKENS_WANTED * (image_processor.patch_size * merge) ** 2
        if size.longest_edge > most:
            options["size"] = {"shortest_edge": min(size.shortest_edge, most), "longest_edge": most}
    return options


def make_inputs(
    processor: Any,
    prompt: Prompt,
    views: Sequence[np.ndarray],
    dtype: torch.dtype,
    image_options: Mapping[str, Any],
) -> dict[str, Tensor]:
    """What the model takes for these pictures with the prompt, one a row, padded on the left, in the CPU's memory.

    Args:
        views: pictures, uint8 [H, W, 3].
        dtype: of the model; floats come in it.
        image_options: as `resolve_image_options` gives them.
    """
    pictures = [[Image.fromarray(view)] for view in views]
    made: BatchFeature = processor(
        images=pictures,
        text=[prompt.text] * len(pictures),
        padding=True,
        return_tensors="pt",
        add_special_tokens=prompt.adds_special_tokens,
        images_kwargs=dict(image_options),
    )
    tensors = {name: value for name, value in made.items() if isinstance(value, Tensor) and name != "labels"}
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}


def sees_squares(processor: Any, prompt: Prompt, image_options: Mapping[str, Any]) -> bool:
    """Whether the model sees every picture as one square of a fixed size, be it cut, squeezed or framed.

    Others take pictures as they are, or in tiles: to them nothing is lost of a wide picture.
    """
    shapes = set()
    for height, width in _SHAPES:
        picture = np.zeros((height, width, 3), dtype=np.uint8)
        made = make_inputs(processor, prompt, [picture], torch.float32, image_options)
        shapes.add((tuple(made["pixel_values"].shape), tuple(made["input_ids"].shape)))
    ((pixels, _), *others) = shapes
    return not others and len(pixels) > 2 and pixels[-1] == pixels[-2]


def image_token_of(config: Any) -> int:
    """The id of the token that stands for a piece of a picture, from a model's configuration."""
    token_id: int = getattr(config, "image_token_id", None) or config.image_token_index
    return token_id


def image_token_count(inputs: Mapping[str, Tensor], image_token_id: int) -> int:
    """Tokens that the pictures of these inputs cost, all together."""
    return int((inputs["input_ids"] == image_token_id).sum())


def _processor_config(folder: Path) -> Path:
    new = folder / "processor_config.json"
    return new if new.is_file() else folder / "preprocessor_config.json"


def _chat_template(folder: Path) -> str | None:
    written = folder / "chat_template.jinja"
    if written.is_file():
        return written.read_text()
    older = folder / "chat_template.json"
    return json.loads(older.read_text())["chat_template"] if older.is_file() else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
