"""ImageData: image files that a list names, with their labels."""

import math
from collections.abc import Iterator
from concurrent.futures import Future, wait
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imae.layers.data.data_layer import DataLayer, reader_count, readers
from imae.layers.data.image_decode import MOST_PIXELS, Window
from imae.layers.data.image_list import read_image, read_image_list
from imae.layers.data.label_noise import corrupt_by, describe_noise, noise_wanted
from imae.layers.data.order import in_epochs
from imae.layers.data.transform import Place, Transform
from imae.layers.layer import Shapes
from imae.prototxt_like.errors import InputError

Reading = tuple[Tensor, Tensor | None, list[Future[Any]]]
"""Which images are read, the batch that they are written to if its shape is known, and the readers' work."""
_ADVICE = "images of different sizes need new_height and new_width, crop_size or a batch_size of 1"


class ImageData(DataLayer):
    """Tops: images (B x C x H x W, of the net's dtype: blue, green, red, 0 to 255) and labels (B, int64).

    - `source` is a list as `read_image_list` reads it; a file's path is `root_folder` and its name, written together.
    - The images come in the order of the list or, by `shuffle`, in a new permutation each epoch, in both phases;
      `rand_skip: n` begins at one of the first n, by the net's seed. A batch runs on over the end of an epoch.
    - Each is decoded with 3 channels, or with 1 where `is_color: false`, and resized to `new_height` x `new_width`.
      Crop and mirror are as for Data. From batch to batch images may differ in size, and the net follows.
    - Label noise is drawn once, for the whole list.
    - By `skip_broken` all images are decoded once before the first batch, and those that cannot be are left out.
    """

    type = "ImageData"

    def setup(self, bottoms: Shapes) -> None:
        """Read the list, corrupt its labels, and read the first image."""
        self._own = self.settings("image_data_param", "a list of images: a name and a label a line")
        self._batch_size, size = self._own.batch_size, (self._own.new_height, self._own.new_width)
        if 0 in size and any(size):
            raise self.error("image_data_param takes both new_height and new_width, or none")
        if math.prod(size) > MOST_PIXELS:
            raise self.error(
                f"new_height and new_width make images of {size[0]}x{size[1]}, more than {MOST_PIXELS:,} pixels"
            )
        self._size = size if any(size) else None
        self._transform = Transform(self, random_crop=self.training, mirror=self.param.transform_param.mirror)
        self._readers = readers(f"read {self.name}")
        self._reading: dict[tuple[int, int], Reading] = {}
        with self.naming():
            self._list = read_image_list(self.context.find(self._own.source))
            intact = self._list.labels
            noisy = noise_wanted(self._own)
            labels = corrupt_by(self._own, intact, self.num_classes, self.context.find) if noisy else intact
        self._images = np.arange(len(intact))
        if self._own.skip_broken or self.context.skip_broken:
            self._images = self.sound(self._readers, len(intact), self._read, self._list.where)
        with self.naming():
            if noisy:
                self.label_noise = describe_noise(self._own, labels[self._images], intact[self._images])
            self._labels, self.intact = (torch.from_numpy(x[self._images]) for x in (labels, intact))
        first = int(self._order(torch.zeros(1, dtype=torch.int64))[0])
        image = self._read(first)
        self._first_size = image.shape[1:]
        self._first_shape = self._transform.shape(image.shape, f"line {self._line(first)}", self._list.path)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The shapes by the first image; a batch of other images has another."""
        return [(self._batch_size, *self._first_shape), (self._batch_size,)][: len(self.param.top)]

    @property
    def num_images(self) -> int:
        return len(self._images)

    @property
    def num_classes(self) -> int:
        """How many classes the labels can name: as many as those of the list do."""
        return int(self._list.labels.max()) + 1

    def batch(self, number: int) -> list[Tensor]:
        """Return the tops of forward pass `number`, and have the images of the next read meanwhile."""
        seed, following = self.context.passes.seed, number + self.context.passes.stride
        reading = self._reading.pop((seed, number), None) or self._begin(number)
        self._reading = {(seed, following): self._begin(following)}
        order, data, work = reading
        wait(work)  # for all at once, as each wake-up of this thread holds the readers up
        images = [image.result() for image in work]
        if data is not None:
            if broken := [first for first in images if first]:
                raise min(broken)[1]
        else:
            lines = [f"{self._line(index)}" for index in order.tolist()]
            position = self._position(number)
            data = self._transform.together(images, position, "line", lines, self._list.path, _ADVICE)
        return [data.to(self.context.dtype), self._labels[order].to(self.context.device)][: len(self.param.top)]

    def _begin(self, number: int) -> Reading:
        """Have the images of forward pass `number` read, and on a CPU, if their shape is known, transformed, too."""
        position = self._position(number)
        order = self._order(position)
        if self.context.device.type != "cpu" or not (self._transform.crop or self._size):
            return order, None, [self._readers.submit(self._read, index) for index in order.tolist()]
        data = self._transform.empty(self._batch_size, self._first_shape)
        images = list(zip(order.tolist(), self._transform.places(position), data.numpy(), strict=True))
        left = iter(enumerate(images))  # all readers take from it: for less work than if each image were submitted
        return order, data, [self._readers.submit(self._write, left) for _ in range(reader_count())]

    def _position(self, number: int) -> Tensor:
        return torch.arange(number * self._batch_size, (number + 1) * self._batch_size)

    def _order(self, position: Tensor) -> Tensor:
        """Return which images stand at these positions in the sequence of all that the layer gives."""
        skipped, stream = self.skipped(self._own.rand_skip), f"{self.name} shuffle" if self._own.shuffle else None
        return in_epochs(position + skipped, self.num_images, self.context.passes.seed, stream)

    def _write(self, left: Iterator[tuple[int, tuple[int, Place, NDArray[Any]]]]) -> tuple[int, InputError] | None:
        """Write the images that are left, transformed, each to its part of the batch: C x H x W.

        Ends at one that cannot be read, and returns its place in the batch and what is wrong with it.
        """
        for number, (index, place, out) in left:
            try:
                window = self._read(index, place.window)
                if place.size != self._first_size:
                    self._transform.shape((len(window), *place.size), f"line {self._line(index)}", self._list.path)
            except InputError as error:
                return number, error
            self._transform.write(window, place, out)
        return None

    def _read(self, index: int, window: Window | None = None) -> NDArray[np.uint8]:
        """Return an image as its file has it, resized, or a window of it: C x H x W."""
        number = int(self._images[index])
        name = self._own.root_folder + self._list.names[number]
        try:
            return read_image(self.context.find(name), self._own.is_color, self._size, window)
        except InputError as error:
            raise self.error(f"{self._list.where(number)}: {error}") from None

    def _line(self, index: int) -> int:
        return self._list.lines[int(self._images[index])]
