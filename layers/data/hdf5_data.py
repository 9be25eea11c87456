"""HDF5Data: rows of the data sets of HDF5 files, which need be no images."""

import math
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imae.layers.data.data_layer import DataLayer
from imae.layers.data.hdf5_file import Hdf5File
from imae.layers.data.label_noise import corrupt_by, describe_noise, noise_wanted
from imae.layers.data.order import order_of
from imae.layers.layer import Shapes, describe
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes


class HDF5Data(DataLayer):
    """Tops: the data sets of their names (B x a row's shape, floats as the net's), of files that `source` lists.

    The rows come file by file in the order of the list, over and over. By `shuffle` each epoch has the files in a new
    order, and in each its rows, as a function of the net's seed. A batch runs on over the ends of files and epochs. A
    file of more than `hdf5_file.WHOLE` bytes is read in pieces. Label noise is drawn once for the labels of all rows:
    of the top called `label`, else of the second.
    """

    type = "HDF5Data"
    tops = (1, None)

    def setup(self, bottoms: Shapes) -> None:
        """Read the list, check each file, and corrupt the labels."""
        self._own = self.settings("hdf5_data_param", "a list of HDF5 files, one a line")
        self._names = list(self.param.top)
        self.index_tops = frozenset(range(len(self._names)))  # may be labels, each of them
        if self.param.HasField("transform_param"):
            raise self.error("does not transform data: it takes no transform_param")
        with self.naming():
            self._open()
            if noise_wanted(self._own):
                self._corrupt()

    def reshape(self, bottoms: Shapes) -> Shapes:
        return [(self._own.batch_size, *shape) for shape in self._files[0].shapes]

    @property
    def num_images(self) -> int:
        return int(self._counts.sum())

    def batch(self, number: int) -> list[Tensor]:
        size = self._own.batch_size
        dtype = np.float64 if self.context.dtype == torch.float64 else np.float32
        tops = [np.empty((size, *shape), dtype) for shape in self._files[0].shapes]
        position = np.arange(number * size, (number + 1) * size)
        done = 0
        with self.naming():
            for place, group in groupby(position // self.num_images):
                for file, rows in self._rows(int(place), position[done : done + len(list(group))] % self.num_images):
                    for name, top in zip(self._names, tops, strict=True):
                        top[done : done + len(rows)] = self._read(file, name, rows)
                    done += len(rows)
        return [torch.from_numpy(top).to(self.context.device) for top in tops]

    def _open(self) -> None:
        list_ = self.context.find(self._own.source)
        lines = [line.strip() for line in read_bytes(list_).decode(errors="surrogateescape").split("\n")]
        self._files: list[Hdf5File] = []
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                file = Hdf5File(self.context.find(line), self._names)
                first = self._files[0] if self._files else file
                for name, shape, expected in zip(self._names, file.shapes, first.shapes, strict=True):
                    if shape != expected:
                        raise InputError(
                            f'{file.path}: a row of "{name}" is {describe(shape)}, in {first.path} {describe(expected)}'
                        )
            except InputError as error:
                raise InputError(f"{list_}: line {number}: {error}") from None
            self._files.append(file)
        if not self._files:
            raise InputError(f"{list_}: names no HDF5 file")
        self._counts = np.array([len(file) for file in self._files])
        self._starts = np.cumsum(self._counts) - self._counts
        self._current = self._files[0]
        self._labels: NDArray[np.int64] | None = None
        if not self.num_images:
            raise InputError(f"{list_}: its files have no rows")

    def _corrupt(self) -> None:
        if len(self._names) < 2:
            raise InputError("label noise needs a second top, the labels")
        self._label = "label" if "label" in self._names else self._names[1]
        parts = []
        for file in self._files:
            part = file.read(self._label)
            part = part.reshape(len(part), math.prod(part.shape[1:]))
            file.close()
            with np.errstate(invalid="ignore"):
                labels = part.astype(np.int64)
            if part.shape[1:] != (1,) or not np.array_equal(part, labels):
                raise InputError(f'{file.path}: "{self._label}" has to be an integer a row for label noise')
            parts.append(labels[:, 0])
        intact = np.concatenate(parts)
        self._labels = corrupt_by(self._own, intact, int(intact.max()) + 1, self.context.find)
        self.label_noise, self.intact = describe_noise(self._own, self._labels, intact), torch.from_numpy(intact)

    def _rows(self, epoch: int, places: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
        """Return which rows of which files stand at these places (ascending) of an epoch, file by file."""
        files = np.arange(len(self._files))
        if self._own.shuffle:
            files = self._permuted(len(files), "files", epoch)
        ends = np.cumsum(self._counts[files])
        found = []
        for turn, group in groupby(np.searchsorted(ends, places, side="right")):
            file, count = int(files[turn]), len(list(group))
            rows, places = places[:count] - (ends[turn] - self._counts[file]), places[count:]
            if self._own.shuffle:
                rows = self._permuted(int(self._counts[file]), f"rows of {file}", epoch)[rows]
            found.append((file, rows))
        return found

    def _permuted(self, count: int, what: str, epoch: int) -> NDArray[np.int64]:
        order: NDArray[np.int64] = order_of(count, self.context.passes.seed, f"{self.name} {what}", epoch).numpy()
        return order

    def _read(self, number: int, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows of a file, which stays open until another one's are asked for."""
        if self._labels is not None and name == self._label:
            row = self._files[0].shapes[self._names.index(name)]
            labels: NDArray[Any] = self._labels[self._starts[number] + rows].reshape(-1, *row)
            return labels
        if self._files[number] is not self._current:
            self._current.close()
            self._current = self._files[number]
        return self._current.read(name, rows)
