"""The images of a data set of PyTorch or Hugging Face, read when they are needed."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from imae.layers.data.image_decode import decode_view
from imae.prototxt_like.errors import InputError

_GRAY = np.array([0.114, 0.587, 0.299], np.float32)
"""Of blue, green, red."""
_BEYOND = 0.25
"""How far resizing may bring floats out of 0 to 1."""


class DataSetImages:
    """`count` images, by number, each as `as_image` makes it of what `item` gives for the number.

    All are of colours, or gray: as `color` says, else as the first of them is. Raises InputError, naming the item,
    where `item` raises or gives no image.
    """

    def __init__(self, item: Callable[[int], Any], count: int, color: bool | None = None) -> None:
        self._item, self._count = item, count
        self._color = len(self._read(0, None)) > 1 if color is None else color

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self._read(int(index), self._color)

    def _read(self, index: int, color: bool | None) -> NDArray[np.uint8]:
        try:
            return as_image(self._item(index), color)
        except InputError as error:
            raise InputError(f"item {index}: {error}") from error
        except Exception as error:  # whatever the code of the data set raises
            raise InputError(f"item {index}: cannot be read: {' '.join(repr(error).split())}") from error


def looks_like_image(value: Any) -> bool:
    """Whether it is one of Pillow's images, or an array or tensor of 1 or 3 channels, or 4."""
    return isinstance(value, Image.Image) or (
        isinstance(value, Tensor | np.ndarray)
        and value.ndim == 3
        and bool({value.shape[0], value.shape[-1]} & {1, 3, 4})
    )


def as_image(value: Any, color: bool | None) -> NDArray[np.uint8]:
    """Return an image as C x H x W, uint8: blue, green, red for `color` True, gray for False, for None as it is.

    Pillow's; the bytes of a file; or an array or tensor, C x H x W, H x W x C or H x W, of red, green, blue (and
    alpha, which does not count) or gray, as integers 0 to 255 or floats 0 to 1. Raises InputError for anything else.
    """
    if isinstance(value, Image.Image | bytes):
        image = decode_view(value, color)
        return np.ascontiguousarray(image[:3] if len(image) > 3 else image)
    if not isinstance(value, Tensor | np.ndarray):
        raise InputError(f"{type(value).__name__} is no image: expected Pillow's, an array or a tensor")
    array: NDArray[Any] = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
    shape = array.shape
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 3 and shape[0] not in (1, 3, 4):
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or len(array) not in (1, 3, 4) or 0 in shape:
        raise InputError(f"an array of the shape {shape} is no image: expected C x H x W, with 1 or 3 channels")
    pixels = _bytes(array)
    if len(pixels) > 1:
        pixels = pixels[2::-1]
    if color is False and len(pixels) > 1:
        pixels = np.rint(np.tensordot(_GRAY, pixels, 1)).astype(np.uint8)[None]
    return np.ascontiguousarray(pixels.repeat(3, 0) if color and len(pixels) == 1 else pixels)


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Values as 0 to 255."""
    if array.dtype == np.uint8:
        return array
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "f" and low >= -_BEYOND and high <= 1 + _BEYOND:
        whole: NDArray[np.uint8] = np.rint(array.clip(0, 1) * 255).astype(np.uint8)
        return whole
    if array.dtype.kind == "b" or (array.dtype.kind in "iu" and low >= 0 and high <= 255):
        return array.astype(np.uint8) * (255 if array.dtype.kind == "b" else 1)
    expected = "floats 0 to 1, before any Normalize" if array.dtype.kind == "f" else "integers 0 to 255"
    raise InputError(f"pixels of {array.dtype} from {low:g} to {high:g}: expected {expected}")
