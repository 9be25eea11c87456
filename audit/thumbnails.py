"""Small pictures of the samples of an audit, for its pages."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imae.audit.image_arrays import shrunk
from imae.audit.result import Result
from imae.audit.samples import Samples, image_below, read_samples
from imae.layers.data.image_list import read_image
from imae.prototxt_like.errors import InputError

_PNG_UP_TO = 64
"""Pixels of the longer side: in JPEGs as small as that one sees the blocks."""
GONE = -1
"""In place of the number of an image that is not there."""


class Thumbnails:
    """Pictures of the samples of a result; there are none where these are features."""

    def __init__(self, result: Result, samples: Samples | None = None) -> None:
        """`samples` are those of the result, where they are at hand; else arrays of images are read again."""
        self._names, self._root, self._outside = result.names, result.root, result.outside
        self._images = samples.images if samples else None
        self._rows: Any = range(len(self._names))
        if samples is None and result.root is None and result.source.startswith(("digits", "cifar10:")):
            found = read_samples(result.source)
            numbers = {name: i for i, name in enumerate(found.names)}
            self._images, self._rows = found.images, [numbers.get(name, GONE) for name in self._names]

    def __bool__(self) -> bool:
        return self._root is not None or self._images is not None

    def of(self, index: int, side: int) -> tuple[str, bytes] | None:
        """Return the media type and bytes of an image, no side longer than `side` pixels; None: it cannot be read."""
        try:
            image = self._pixels(index)
        except InputError:
            return None
        height, width = image.shape[1:]
        scale = side / max(height, width)
        if scale < 1:
            image = shrunk(image, (max(1, round(height * scale)), max(1, round(width * scale))))
        pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image[::-1].transpose(1, 2, 0))
        file = io.BytesIO()
        small = max(image.shape[1:]) <= _PNG_UP_TO
        Image.fromarray(pixels).save(file, "PNG" if small else "JPEG", quality=80, optimize=True)
        return ("image/png" if small else "image/jpeg"), file.getvalue()

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        if self._images is not None:
            if self._rows[index] == GONE:
                raise InputError(f"{self._names[index]}: is no longer there")
            image: NDArray[np.uint8] = self._images[self._rows[index]]
            return image
        assert self._root is not None
        return read_image(image_below(self._root, self._names[index], self._outside), True)
