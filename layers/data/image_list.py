"""Lists of image files with labels, one a line: `NAME LABEL`, as Caffe's convert_imageset and ImageData read them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from imae.layers.data.image_decode import Window, decode_view
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes

_LARGEST = 2**31 - 1
"""Of a label: Caffe reads an int."""


@dataclass(frozen=True)
class ImageList:
    """The images that a list names, in order, each with its label and the number of its line, from 1, if it has one."""

    path: Path
    names: list[str]
    labels: NDArray[np.int64]
    lines: list[int]

    def where(self, index: int) -> str:
        """Return how to name an image in a message: by its list and line; without lines it is a folder's."""
        return f"{self.path}: line {self.lines[index]}" if self.lines else f"{self.path}"


def read_image_list(path: Path) -> ImageList:
    """Read a list; a name may have spaces, as its label is what stands after the last one. Empty lines do not count.

    Raises InputError, naming the file and the line, for a line without a name or without an integer as its label, and
    for a list of no images.
    """
    names, labels, lines = [], [], []
    for number, raw in enumerate(read_bytes(path).split(b"\n"), 1):
        line = raw.decode(errors="surrogateescape").strip()  # a name is bytes, of whatever encoding
        if not line:
            continue
        name, _, label = line.replace("\t", " ").rpartition(" ")
        value = label_of(label, f"{path}: line {number}")
        if not name.strip():
            raise InputError(f"{path}: line {number}: expected an image's name and its label, found only {label!r}")
        names.append(line[: len(name)])
        labels.append(value)
        lines.append(number)
    if not names:
        raise InputError(f"{path}: names no image")
    return ImageList(path, names, np.array(labels, np.int64), lines)


def label_of(text: str, where: str) -> int:
    """Return the label that `text` is; raises InputError, beginning with `where`, if it is none."""
    try:
        value = int(text)
    except ValueError:
        raise InputError(f"{where}: {text!r} is no label, expected an integer") from None
    if abs(value) > _LARGEST:
        raise InputError(f"{where}: the label {value} exceeds {_LARGEST}")
    return value


def read_image(
    path: Path, color: bool, size: tuple[int, int] | None = None, window: Window | None = None
) -> NDArray[np.uint8]:
    """Read an image file as C x H x W: blue, green, red, or gray alone without `color`; of `size` (H, W) if given.

    Of what that gives, only the `window` if there is one. Raises InputError, naming the file.
    """
    data = read_bytes(path)
    try:
        image = decode_view(data, color, window if size is None else None)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if size is None:
        return image
    image = resize(image, size)
    return image[:, *window(*size)] if window else image


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return `image` (C x H x W) as C x `size`, by OpenCV's INTER_LINEAR to within one level.

    Pixels have their centres at half a pixel, and none but the nearest four count, however much smaller it becomes.
    """
    if image.shape[1:] == size:
        return image
    backward = image.strides[0] < 0  # the planes of a decoded image: red, green, blue in memory, pixel by pixel
    ahead = image[::-1] if backward else image
    if isinstance(image.base, np.ndarray) and image.base.shape == (*image.shape[1:], 4):
        padded = image.base.transpose(2, 0, 1)  # a fourth byte to each pixel, which costs less than packing the others
        ahead = padded if padded[:3].__array_interface__ == ahead.__array_interface__ else ahead
    pixels = torch.from_numpy(ahead if ahead.flags.writeable else ahead.copy(order="K"))[None]
    if size == (1, 1):  # to which PyTorch resizes bytes in this memory format alone
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    resized: NDArray[np.uint8] = F.interpolate(pixels, size, mode="bilinear")[0, : len(image)].numpy()
    return resized[::-1] if backward else resized
