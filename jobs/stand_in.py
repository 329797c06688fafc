"""The recognizer that is used when none is given: small, with random weights, made on the fly."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from model.random_init import random_recognizer
from pipeline.model_store import cache_folder

STAND_IN_NOTICE = (
    "The model is a small stand-in with RANDOM weights: "
    "everything runs as with a trained one, but its labels mean nothing."
)
_NAME = "random-stand-in-1"
_WORDS = """
airplane apple backpack ball banana bear bed bench bicycle bird boat book bottle bowl box branch bridge bus cake
camera car carrot cat chair child clock cloud coat couch cow cup curtain desk dog donut door dress elephant fence
field flower fork frisbee giraffe glass glove grass guitar hat helmet horse house jacket keyboard kite knife lamp
laptop leaf man mirror motorcycle mountain mouse ocean orange oven pizza plane plant plate pole refrigerator river
road rock roof sand sandwich scissors sheep shelf shirt shoe sign sink skateboard ski sky snow spoon street suitcase
sun surfboard table tennis tie toilet tower train tree truck umbrella vase wall water wave wheel window wine woman
zebra
""".split()


def stand_in_model() -> str:
    """Folder of the stand-in, made on first use; the same weights on every machine."""
    from transformers import CLIPVisionConfig, LlamaConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = cache_folder() / _NAME
    if not folder.is_dir():
        recognizer = random_recognizer(
            vision=CLIPVisionConfig(
                hidden_size=128,
                intermediate_size=512,
                num_hidden_layers=4,
                num_attention_heads=4,
                image_size=112,
                patch_size=14,
            ),
            text=LlamaConfig(
                vocab_size=len(_WORDS) + 9,
                hidden_size=192,
                intermediate_size=512,
                num_hidden_layers=4,
                num_attention_heads=4,
                # Large enough that what the image shows reaches the labels.
                initializer_range=0.08,
            ),
            words=_WORDS,
            end_share=0.7,
        )
        partial = folder.parent / f".{_NAME}.{uuid.uuid4().hex}"
        recognizer.save_pretrained(partial)
        _put_in_place(partial, folder)
    return str(folder)


def _put_in_place(partial: Path, folder: Path) -> None:
    """Renames a whole folder; another process may have been faster."""
    try:
        partial.rename(folder)
    except OSError:
        shutil.rmtree(partial)
