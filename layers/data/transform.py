"""What a data layer does to its images on their way into a batch: mean, scale, padding, crop and mirror."""

import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad as zero_pad

from imae.layers.layer import Layer, Shape, describe
from imae.layers.random_streams import random_32_bits, random_below
from imae.prototxt_like.mean_file import read_mean


class Place:
    """Where the window of one image is, which is drawn before the image's size is known.

    From 32 random bits each: along y and x, None for the centre, and whether it is mirrored, None for no.
    """

    def __init__(self, crop: int, y: int | None, x: int | None, mirror: int | None) -> None:
        self._crop, self._bits = crop, (y, x)
        self.flipped = mirror is not None and _below(2, mirror) == 1

    def window(self, height: int, width: int) -> tuple[slice, slice]:
        """Return, and keep, the rows and columns in an image of this size; all where the window is larger."""
        self.size = height, width
        self.rows, self.columns = (self._along(size, bits) for size, bits in zip(self.size, self._bits, strict=True))
        return self.rows, self.columns

    def _along(self, size: int, bits: int | None) -> slice:
        slack = max(0, size - self._crop) if self._crop else 0
        first = slack // 2 if bits is None else _below(slack + 1, bits)
        return slice(first, first + size - slack)


def _below(n: int, bits: int) -> int:
    """As `random_below`."""
    return n * bits >> 32


class Transform:
    """A layer's `transform_param` as a function of (images, positions): tensor operations, on the images' device.

    In this order: y = scale (image - mean); `pad` zeros on each side, which stand for the mean; a window of crop_size,
    at random for each image where `random_crop`, else in the centre; where `mirror`, each image flipped left to right
    with probability 1/2. What is random is a function of the net's seed, the layer's name and the image's position in
    the sequence of all images that the layer gives.
    """

    def __init__(
        self, layer: Layer, *, random_crop: bool, mirror: bool, pad: int = 0, default_mean: Tensor | None = None
    ) -> None:
        param = layer.param.transform_param
        # Weak, as the layer has this Transform: a cycle would keep its images until garbage is collected.
        self._layer: Layer = weakref.proxy(layer)
        self._pad, self._mirror = pad, mirror
        self.crop: int = param.crop_size  # height and width of the window; 0 for whole images
        self._random_crop = random_crop
        self.scale: float = param.scale
        self._dtype = torch.float64 if layer.context.dtype == torch.float64 else torch.float32
        given = self._read_mean()
        mean = default_mean if given is None else given
        # What is subtracted: C x H x W, or values C x 1 x 1; None: nothing.
        self.mean = None if mean is None else mean.to(layer.context.device, self._dtype)

    def _read_mean(self) -> Tensor | None:
        """Return `mean_file` as C x H x W, or the `mean_value`s as C x 1 x 1 (C may be 1); None without either."""
        param = self._layer.param.transform_param
        if not param.HasField("mean_file"):
            return torch.tensor(list(param.mean_value)).view(-1, 1, 1) if param.mean_value else None
        if param.mean_value:
            raise self._layer.error("transform_param has both mean_file and mean_value, it takes one of them")
        with self._layer.naming():
            mean = torch.from_numpy(read_mean(self._layer.context.find(param.mean_file)))
        while mean.dim() > 3 and mean.shape[0] == 1:
            mean = mean[0]
        if mean.dim() != 3:
            raise self._layer.error(
                f"mean_file {param.mean_file} has the shape {describe(mean.shape)}, expected one image 1xCxHxW"
            )
        return mean

    def shape(self, image: Shape, name: str = "the image", source: Path | None = None) -> Shape:
        """Return the shape (C, H, W) that an image of shape `image` (C, H, W) gets.

        Raises InputError, calling the image `name` and naming the `source` it is of, where mean or crop do not fit it.
        """
        where = f"{source}: " if source else ""
        channels, height, width = image
        mean = self.mean
        if mean is not None and mean.shape[1:] == (1, 1):
            if len(mean) not in (1, channels):
                raise self._layer.error(
                    f"{where}{len(mean)} mean values do not fit {name}, {describe(image)}: give 1 or {channels}"
                )
        elif mean is not None and mean.shape != image:
            file = self._layer.param.transform_param.mean_file
            of_file = f" (mean_file {file})" if file else ""
            raise self._layer.error(
                f"{where}the mean image, {describe(mean.shape)}, does not fit {name}, {describe(image)}{of_file}"
            )
        height, width = height + 2 * self._pad, width + 2 * self._pad
        if self.crop > min(height, width):
            raise self._layer.error(f"{where}crop_size {self.crop} exceeds {name}, {height}x{width}")
        return (channels, self.crop or height, self.crop or width)

    def __call__(self, images: Tensor, position: Tensor) -> Tensor:
        """Return the batch (B x C x H' x W', in the net's dtype) of `images` (B x C x H x W) at `position` (B)."""
        # What is done to each pixel alike is done to those of the window alone.
        window_first = not self._pad and (self.mean is None or self.mean.shape[1:] == (1, 1))
        x = (self._cut(images, position) if window_first else images).to(self._dtype)
        if self.mean is not None:
            x = x - self.mean
        if self.scale != 1:
            x = x * self.scale
        if self._pad:
            x = zero_pad(x, (self._pad,) * 4)
        if not window_first:
            x = self._cut(x, position)
        return x.to(self._layer.context.dtype).contiguous()

    def together(
        self,
        images: Sequence[NDArray[Any]],
        position: Tensor,
        kind: str,
        names: Sequence[str],
        source: Path,
        advice: str,
    ) -> Tensor:
        """Return the batch of `images` (each C x H x W) at `position` (B), on the net's device.

        They may differ in size where that is so of none after the transform. Raises InputError, naming the first that
        differs, `kind` and name, its `source` and what to do, where it is.
        """
        device, first = self._layer.context.device, images[0]
        expected = self.shape(first.shape, f"{kind} {names[0]}", source)
        for image, name in zip(images, names, strict=True):
            if image.shape != first.shape and self.shape(image.shape, f"{kind} {name}", source) != expected:
                raise self._layer.error(
                    f"{source}: {kind} {name} is an image of {describe(image.shape)}, the first of its batch, "
                    f"{names[0]}, one of {describe(first.shape)}: {advice}"
                )
        if device.type == "cpu":
            return self._one_by_one(images, position, expected)
        if len({(image.shape, image.dtype) for image in images}) == 1:
            planes = [np.ascontiguousarray(image) for image in images]  # else `stack` takes four times as long
            return self(torch.from_numpy(np.stack(planes)).to(device), position.to(device))
        alone = (torch.from_numpy(np.stack([image])).to(device) for image in images)
        return torch.cat([self(x, at[None].to(device)) for x, at in zip(alone, position, strict=True)])

    def _one_by_one(self, images: Sequence[NDArray[Any]], position: Tensor, shape: Shape) -> Tensor:
        """Return the same batch, of images of `shape`: on a CPU faster, as each pixel of a window is touched once."""
        batch = self.empty(len(images), shape)
        for image, out, place in zip(images, batch.numpy(), self.places(position), strict=True):
            self.write(image[:, *place.window(*image.shape[1:])], place, out)
        return batch.to(self._layer.context.dtype)

    def empty(self, count: int, shape: Shape) -> Tensor:
        """Return a batch of `count` images of `shape` to be written, in the precision that they are computed in."""
        return torch.empty((count, *shape), dtype=self._dtype)

    def write(self, window: NDArray[Any], place: Place, out: NDArray[Any]) -> None:
        """Write to `out` (C x H' x W') the transformed `window` of an image, which `place` gave."""
        side = slice(None, None, -1 if place.flipped else None)
        window = window[:, :, side]
        # Bytes are put in rows first, a quarter of the memory: floats are made from such in less than half the time.
        out[...] = window if window.strides[2] == window.itemsize else np.ascontiguousarray(window)
        if (mean := self._mean_array) is not None:
            out -= mean if mean.shape[1:] == (1, 1) else mean[:, place.rows, place.columns][:, :, side]
        if self.scale != 1:
            out *= self.scale

    @cached_property
    def _mean_array(self) -> NDArray[Any] | None:
        """The mean on a CPU as an array, made once: between images each call into PyTorch takes long."""
        return None if self.mean is None else self.mean.numpy()

    def places(self, position: Tensor) -> list[Place]:
        """Return the place of the window of each image at `position` (B)."""
        seed, name = self._layer.context.passes.seed, self._layer.name

        def bits(what: str, wanted: bool) -> list[int | None]:
            if not wanted:
                return [None] * len(position)
            return random_32_bits(seed, f"{name} {what}", position).tolist()

        draws = [bits("crop y", self._random_crop), bits("crop x", self._random_crop), bits("mirror", self._mirror)]
        return [Place(self.crop, y, x, flip) for y, x, flip in zip(*draws, strict=True)]

    def _cut(self, x: Tensor, position: Tensor) -> Tensor:
        """Return a window of each image, at random or in the centre, mirrored or not."""
        height, width = x.shape[2:]
        size = (self.crop or height, self.crop or width)
        if self._mirror or (self.crop and self._random_crop):
            passes = self._layer.context.passes
            return (self._gather if x.is_cuda or passes.on_device is not None else self._slices)(x, size, position)
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        return x[:, :, top : top + size[0], left : left + size[1]]

    def _gather(self, x: Tensor, size: tuple[int, int], position: Tensor) -> Tensor:
        """Cut by one gather of pixels, which reads no number on the host."""
        rows, columns = (
            self._offset(whole - part, axis, position) + torch.arange(part, device=x.device)
            for axis, whole, part in zip("yx", x.shape[2:], size, strict=True)
        )
        if self._mirror:
            flipped = self._draw(2, "mirror", position).bool()
            columns = torch.where(flipped, columns.flip(1), columns)
        pixels = (rows[:, :, None] * x.shape[3] + columns[:, None, :]).flatten(1)
        return x.flatten(2).gather(2, pixels[:, None].expand(-1, x.shape[1], -1)).view(*x.shape[:2], *size)

    def _slices(self, x: Tensor, size: tuple[int, int], position: Tensor) -> Tensor:
        """Cut image by image, which on a CPU is several times as fast."""
        cut = x.new_empty((*x.shape[:2], *size))
        for image, out, place in zip(x, cut, self.places(position), strict=True):
            part = image[:, *place.window(*x.shape[2:])]
            out.copy_(part.flip(2) if place.flipped else part)
        return cut

    def _offset(self, slack: int, axis: str, position: Tensor) -> Tensor:
        """Return where the window begins along an axis that is `slack` longer, B x 1."""
        if self._random_crop:
            return self._draw(slack + 1, f"crop {axis}", position)
        return torch.zeros_like(position).add_(slack // 2)[:, None]

    def _draw(self, n: int, what: str, position: Tensor) -> Tensor:
        return random_below(n, self._layer.context.passes.seed, f"{self._layer.name} {what}", position)[:, None]

    def mean_of(self, window: Shape) -> Tensor | None:
        """Return what is subtracted of the `window` (C, H, W) in the centre of images; None for nothing.

        Raises InputError, naming the layer, if the mean does not cover it, or is of another number of channels.
        """
        mean = self.mean
        if mean is None:
            return None
        if len(mean) not in (1, window[0]):
            raise self._layer.error(f"the mean, {describe(mean.shape)}, does not fit images of {describe(window)}")
        if mean.shape[1:] == (1, 1):
            return mean
        top, left = ((whole - part) // 2 for whole, part in zip(mean.shape[1:], window[1:], strict=True))
        if min(top, left) < 0:
            raise self._layer.error(f"the mean, {describe(mean.shape)}, does not cover {describe(window)}")
        return mean[:, top : top + window[1], left : left + window[2]]
