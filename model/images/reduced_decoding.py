"""JPEGs that are decoded no larger than needed.

libjpeg gives a half, a quarter or an eighth of an image a side in a fraction of the time, since it leaves out the fine
detail of each block. With enough pixels left over, the resized image is the same to a grey level or few.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

DECODINGS: Mapping[str, int | None] = MappingProxyType({"exact": None, "fast": 4, "faster": 2})
"""Names for how much of a JPEG is decoded: at least so many pixels a side for one of the resized image; None is all."""
DECODING = "fast"
"""Of new runs: it changes labels no more than saving a picture once more does (tests/benchmarks/results)."""
_REDUCTIONS = (8, 4, 2)


def reduce_decoding(opened: Image.Image, resized: tuple[int, int], decoding: str) -> int:
    """Lets a JPEG decode to a half, a quarter or an eighth a side; returns 2, 4 or 8, or 1 where it stays as it is.

    Its size is then rounded up: what it stands for is its former size, divided by what is returned.

    Args:
        opened: not decoded yet; its size changes. Images of other formats stay as they are.
        resized: width and height that the whole image is resized to.
        decoding: one of `DECODINGS`.
    """
    margin = DECODINGS[decoding]
    if margin is None or not isinstance(opened, JpegImageFile):
        return 1
    width, height = opened.size
    for reduction in _REDUCTIONS:
        if width >= reduction * margin * resized[0] and height >= reduction * margin * resized[1]:
            # None where it cannot be done, as for an image that is decoded already.
            drafted = opened.draft(None, (width // reduction, height // reduction))
            return 1 if drafted is None else reduction
    return 1


def forget_reduction(opened: Image.Image) -> None:
    """Lets the next frame of an image decode in full: Pillow would reduce it by the scale of the first."""
    if isinstance(opened, JpegImageFile):
        opened.decoderconfig = ()
