"""WindowData: windows of images, objects and background, as R-CNN trains on them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imae.layers.data.data_layer import DataLayer, readers
from imae.layers.data.image_list import read_image, resize
from imae.layers.data.transform import Transform
from imae.layers.layer import Shapes, describe
from imae.layers.random_streams import random_below
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes

_CACHED = 2**28  # bytes of decoded images that `cache_images` keeps


@dataclass(frozen=True)
class Window:
    """A part of an image, of class `label`: columns x1 to x2 and rows y1 to y2, both included; and its line."""

    image: str
    label: int
    overlap: float
    box: tuple[int, int, int, int]
    line: int


class WindowData(DataLayer):
    """Tops: windows (B x 3 x crop_size x crop_size: blue, green, red) and labels (B, int64; 0: background).

    A batch holds B - int(B fg_fraction) windows of overlap below `bg_threshold`, then windows of `fg_threshold` and
    more, each drawn from all such, by the net's seed. A window is resized to crop_size, with `context_pad` pixels of
    what lies around it, zeros outside of the image; `crop_mode: "square"` takes the square around it instead. Then
    y = scale (window - mean), the mean image's centre, and mirroring.

    Source: Girshick et al., "Rich feature hierarchies for accurate object detection", CVPR 2014.
    """

    type = "WindowData"

    def setup(self, bottoms: Shapes) -> None:
        """Read the list of windows and the mean."""
        self._own = self.settings("window_data_param", "a list of images and windows")
        transform = self.param.transform_param
        self._crop, self._mirror, pad = transform.crop_size, transform.mirror, self._own.context_pad
        if self._crop <= 2 * pad:
            raise self.error(f"transform_param needs a crop_size above {2 * pad}, twice the context_pad")
        self.check_size("top", (self._own.batch_size, 3, self._crop, self._crop))
        if self._own.crop_mode not in ("warp", "square"):
            raise self.error(f'crop_mode is "warp" or "square", not "{self._own.crop_mode}"')
        if not 0 <= self._own.fg_fraction <= 1:
            raise self.error(f"fg_fraction lies between 0 and 1, not at {self._own.fg_fraction:g}")
        self._scale = self._own.scale if self._own.HasField("scale") else transform.scale
        self._mean = self._centre(Transform(self, random_crop=False, mirror=False).mean)
        self._readers = readers(f"read {self.name}")
        self._cache: dict[str, NDArray[np.uint8]] = {}
        self._cached = 0
        with self.naming():
            self._list = self.context.find(self._own.source)
            windows = list(self._windows())
            if self.context.skip_broken:
                windows = self._of_sound_images(windows)
        self._foreground = [window for window in windows if window.overlap >= self._own.fg_threshold]
        self._background = [w for w in windows if w.overlap < min(self._own.bg_threshold, self._own.fg_threshold)]
        for window in self._foreground:
            if window.label < 1:
                raise self.error(
                    f"{self._list}: line {window.line}: an object of class {window.label}, expected 1 or more"
                )
        if not self._foreground or not self._background:
            kind = "of fg_threshold and more" if not self._foreground else "below bg_threshold"
            raise self.error(f"{self._list}: has no window with an overlap {kind}")

    def reshape(self, bottoms: Shapes) -> Shapes:
        size = self._own.batch_size
        return [(size, 3, self._crop, self._crop), (size,)][: len(self.param.top)]

    def batch(self, number: int) -> list[Tensor]:
        size, seed = self._own.batch_size, self.context.passes.seed
        foreground = int(np.float32(size) * np.float32(self._own.fg_fraction))
        position = torch.arange(number * size, (number + 1) * size)
        drawn: list[tuple[Window, int]] = []
        for windows, part in (
            (self._background, position[: size - foreground]),
            (self._foreground, position[size - foreground :]),
        ):
            chosen = random_below(len(windows), seed, f"{self.name} window", part).tolist()
            flips = random_below(2, seed, f"{self.name} mirror", part).tolist() if self._mirror else [0] * len(part)
            drawn += [(windows[i], flip) for i, flip in zip(chosen, flips, strict=True)]
        with self.naming():
            images = list(self._readers.map(lambda pair: self._cut(*pair), drawn))
        labels = [0] * (size - foreground) + [window.label for window, _ in drawn[size - foreground :]]
        data = torch.from_numpy(np.stack(images)).to(self.context.device, self.context.dtype)
        return [data, torch.tensor(labels, device=self.context.device)][: len(self.param.top)]

    def _windows(self) -> Iterator[Window]:
        """Read the list: for each image `# INDEX NAME CHANNELS HEIGHT WIDTH COUNT`, then its windows' six numbers."""
        lines = enumerate(read_bytes(self._list).split(b"\n"), 1)
        words = ((number, word.decode(errors="surrogateescape")) for number, line in lines for word in line.split())
        last = 1

        def take(what: str, kind: type = int) -> Any:
            nonlocal last
            last, word = next(words, (last, ""))
            try:
                return kind(word)
            except ValueError:
                found = repr(word) if word else "the end"
                raise InputError(f"{self._list}: line {last}: found {found}, expected {what}") from None

        for last, word in words:
            if word != "#":
                raise InputError(f"{self._list}: line {last}: found {word!r}, expected #, before an image")
            take("the image's index")
            last, name = next(words, (last, ""))
            channels, *_ = take("its channels"), take("its height"), take("its width")
            if channels != 3:
                raise InputError(f"{self._list}: line {last}: an image of {channels} channels, expected 3")
            for _ in range(take("its number of windows")):
                label, overlap = take("a window's class"), take("its overlap", float)
                x1, y1, x2, y2 = (take(f"its {side}") for side in ("x1", "y1", "x2", "y2"))
                yield Window(self._own.root_folder + name, label, overlap, (x1, y1, x2, y2), last)

    def _centre(self, mean: Tensor | None) -> NDArray[np.float32] | None:
        """Return the part of a mean image that windows are compared with, or mean values as they are."""
        if mean is None:
            return None
        array: NDArray[np.float32] = mean.cpu().float().numpy()
        channels, height, width = array.shape
        if (height, width) == (1, 1) and channels in (1, 3):
            return array
        offset = (width - self._crop) // 2
        if channels != 3 or offset < 0 or offset + self._crop > height:
            raise self.error(
                f"the mean, {describe(array.shape)}, does not cover windows of 3x{self._crop}x{self._crop}"
            )
        return array[:, offset : offset + self._crop, offset : offset + self._crop]

    def _cut(self, window: Window, flip: int) -> NDArray[np.float32]:
        """Return the top's 3 x crop_size x crop_size of a window."""
        try:
            image = self._image(window.image)
            (left, top, right, bottom), (height, width), (row, column) = self._place(window.box, image.shape, flip)
            part = image[:, top : bottom + 1, left : right + 1]
            if min(left, top) < 0 or right >= image.shape[2] or bottom >= image.shape[1] or 0 in part.shape:
                raise InputError(f"the window {window.box} does not lie in {window.image}, {describe(image.shape)}")
        except InputError as error:
            raise InputError(f"{self._list}: line {window.line}: {error}") from None
        pixels = resize(part, (height, width))
        where = (slice(None), slice(row, row + height), slice(column, column + width))
        values = (pixels[:, :, ::-1] if flip else pixels).astype(np.float32)
        if self._mean is not None:
            values -= self._mean if self._mean.shape[1:] == (1, 1) else self._mean[where]
        whole = np.zeros((3, self._crop, self._crop), np.float32)
        whole[where] = values * np.float32(self._scale)
        return whole

    def _place(
        self, box: tuple[int, int, int, int], image: tuple[int, ...], flip: int
    ) -> tuple[tuple[int, int, int, int], tuple[int, int], tuple[int, int]]:
        """Return which part of an image (C x H x W) is taken, what size it gets, and at which row and column it stands.

        As Caffe computes it, in float32, rounding halves away from 0.
        """
        x1, y1, x2, y2 = box
        crop, square = self._crop, self._own.crop_mode == "square"
        if not self._own.context_pad and not square:
            return box, (crop, crop), (0, 0)
        stretch = np.float32(crop) / np.float32(crop - 2 * self._own.context_pad)
        half_height, half_width = np.float32((y2 - y1 + 1) / 2), np.float32((x2 - x1 + 1) / 2)
        centre_x, centre_y = np.float32(x1) + half_width, np.float32(y1) + half_height
        if square:
            half_height = half_width = max(half_height, half_width)
        x1, x2 = _round(centre_x - half_width * stretch), _round(centre_x + half_width * stretch)
        y1, y2 = _round(centre_y - half_height * stretch), _round(centre_y + half_height * stretch)
        scale_x, scale_y = np.float32(crop) / np.float32(x2 - x1 + 1), np.float32(crop) / np.float32(y2 - y1 + 1)
        before_x, before_y = max(0, -x1), max(0, -y1)
        after_x, after_y = max(0, x2 - image[2] + 1), max(0, y2 - image[1] + 1)
        x1, x2, y1, y2 = x1 + before_x, x2 - after_x, y1 + before_y, y2 - after_y
        width, height = _round(np.float32(x2 - x1 + 1) * scale_x), _round(np.float32(y2 - y1 + 1) * scale_y)
        row = _round(np.float32(before_y) * scale_y)
        column = _round(np.float32(after_x if flip else before_x) * scale_x)
        return (x1, y1, x2, y2), (min(height, crop - row), min(width, crop - column)), (row, column)

    def _of_sound_images(self, windows: list[Window]) -> list[Window]:
        """Return those of images that can be read, and say how many images are left out."""
        lines = {window.image: window.line for window in reversed(windows)}
        names = sorted(lines, key=lines.__getitem__)
        sound = self.sound(
            self._readers,
            len(names),
            lambda i: read_image(self.context.find(names[i]), color=True),
            lambda i: f"{self._list}: line {lines[names[i]]}",
        )
        kept = {names[i] for i in sound}
        return [window for window in windows if window.image in kept]

    def _image(self, name: str) -> NDArray[np.uint8]:
        if name in self._cache:
            return self._cache[name]
        image = read_image(self.context.find(name), color=True)
        if self._own.cache_images and self._cached + image.nbytes <= _CACHED:
            self._cache[name] = image
            self._cached += image.nbytes
        return image


def _round(value: np.float32) -> int:
    return int(math.copysign(math.floor(abs(value) + np.float32(0.5)), value))
