"""Images of samples as arrays of one size, read when they are needed."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from imae.audit.data_set_images import DataSetImages
from imae.audit.samples import Samples, image_below
from imae.layers.data.data_layer import readers
from imae.layers.data.image_list import read_image
from imae.prototxt_like.errors import InputError

Size = tuple[int, int]


class ImageArrays:
    """The images of `samples`, each C x H x W, uint8: gray, or blue, green, red.

    `threads` files are read at a time, without it as many as there are cores; the items of a data set, whose code may
    not stand more, one at a time.
    """

    def __init__(self, samples: Samples, *, color: bool = True, threads: int | None = None) -> None:
        self._samples, self._color = samples, color
        self._pool = readers("images", 1 if isinstance(samples.images, DataSetImages) else threads)

    def read(self, indices: Sequence[int], size: Size) -> tuple[NDArray[np.uint8], dict[int, str]]:
        """Return images (B x C x H x W), black where they cannot be read, and why not, by place in the batch."""
        read = list(self._pool.map(self._image, indices, [size] * len(indices)))
        failed = {i: found for i, found in enumerate(read) if isinstance(found, str)}
        black = np.zeros((3 if self._color else 1, *size), np.uint8)
        return np.stack([black if isinstance(found, str) else found for found in read]), failed

    def usual_size(self) -> int:
        """Return the median of the shorter sides, in pixels, of some of the images."""
        if isinstance(self._samples.images, np.ndarray):
            return min(map(int, self._samples.images.shape[2:]))
        sides = []
        for index in np.linspace(0, len(self._samples) - 1, 64).astype(int):
            image = self._image(int(index), None)
            if not isinstance(image, str):
                sides.append(min(image.shape[1:]))
        if not sides:
            raise InputError(f"{self._samples.source}: none of 64 images can be read: {image}")
        return int(np.median(sides))

    def _image(self, index: int, size: Size | None) -> Any:
        """An image, or why it cannot be read: it may have gone since the folder was listed."""
        samples = self._samples
        try:
            if samples.images is not None:
                image = samples.images[index]
                if self._color and len(image) == 1:
                    image = image.repeat(3, 0)
            else:
                assert samples.root is not None
                image = read_image(image_below(samples.root, samples.names[index], samples.outside), self._color)
        except InputError as error:
            return str(error)
        return image if size is None else shrunk(image, size)


def fingerprint(samples: Samples) -> str:
    """Return what tells these images from others: their names, and of files their sizes and when they were changed."""
    digest = hashlib.blake2b(digest_size=8)
    for name in samples.names:
        digest.update(f"{name}\n".encode(errors="surrogateescape"))
        if samples.root is not None:
            with contextlib.suppress(OSError):
                found = os.stat(os.path.join(samples.root, name))  # noqa: PTH116, PTH118  there may be a million
                digest.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def shrunk(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Return an image (C x H x W) of another size, each pixel the mean of what it covers."""
    if image.shape[1:] == size:
        return image
    pixels = torch.from_numpy(np.array(image, order="C")).float()[None]
    resized: NDArray[np.uint8] = (
        F.interpolate(pixels, size, mode="bilinear", antialias=True)[0].round_().clamp_(0, 255).byte().numpy()
    )
    return resized
