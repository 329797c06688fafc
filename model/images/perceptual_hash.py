"""A number that tells how a picture looks: of pictures that look alike, few of its bits differ.

It is pHash, as the library ImageHash makes it: the picture in grey at 32 x 32, and which of the 64 lowest frequencies
of its cosine transform are above their median. So half of the bits are set, and two hashes mostly differ in an even
number of bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from model.images.opening import decode_errors
from model.images.pixels import is_flat
from model.images.seen_image import SeenImage

_SIDE = 32
# Pillow averages whole pixels first, down to so many times the size, which takes a quarter of the time.
_REDUCING_GAP = 3.0


def perceptual_hash(seen: SeenImage) -> int | None:
    """The 64 bits of the whole upright picture, as a signed number; None where it is nearly of one colour.

    Of such a picture the bits would be noise. Not of the part that a model sees: pictures that differ at their sides
    would be alike. Any size of decoding does, since 32 x 32 pixels are left.

    Raises ImageDecodeError where the picture cannot be resampled, ImportError where ImageHash is not installed.
    """
    hasher = load_hasher()
    with decode_errors():
        grey = seen.rgb.convert("L")
        small = grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
    if is_flat(small.convert("RGB")):
        return None
    # A square may be turned when it is small.
    upright = small if seen.turn is None else small.transpose(seen.turn)
    return int.from_bytes(np.packbits(hasher.phash(upright).hash).tobytes(), signed=True)


def load_hasher() -> Any:
    """The library. Raises ImportError, with what to install, where it is missing."""
    try:
        import imagehash
    except ImportError as error:
        raise ImportError("perceptual hashes need ImageHash: pip install 'tagstream[duplicates]'") from error
    return imagehash
