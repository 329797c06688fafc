"""The memory in which Pillow holds an image's pixels, without a copy.

Pillow shares it by the Arrow C data interface: a capsule with a structure whose layout is fixed
(https://arrow.apache.org/docs/format/CDataInterface.html). NumPy and torch do not read that; Pillow's own way to NumPy
copies twice, which costs as much as resizing.
"""

from __future__ import annotations

import ctypes

import numpy as np
from PIL import Image


class _Array(ctypes.Structure):
    """ArrowArray of the interface."""


_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]
_pointer_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def shared_pixels(image: Image.Image) -> np.ndarray:
    """The pixels of a decoded RGB image, uint8 [H, W, 3 or 4]; a fourth channel holds nothing.

    They are the image's own, which nobody may write to, or a copy where Pillow holds them in several blocks: it does so
    from 16 MB on (4 million pixels).
    """
    if image.mode != "RGB":
        raise ValueError(f"the image is in {image.mode}; expected RGB")
    try:
        _, capsule = image.__arrow_c_array__()
    except ValueError:
        return np.array(image)
    # Pixels are lists of four channels: the channels are the only child.
    pixels = ctypes.cast(_pointer_in(capsule, b"arrow_array"), ctypes.POINTER(_Array)).contents
    address = pixels.children[0].contents.buffers[1]
    memory = (ctypes.c_uint8 * (image.height * image.width * 4)).from_address(address)
    # The image's memory lives as long as the capsule.
    memory.capsule = capsule  # type: ignore[attr-defined]
    return np.ctypeslib.as_array(memory).reshape(image.height, image.width, 4)
