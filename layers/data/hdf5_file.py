"""Rows of numbers in HDF5 files: of a file that fits, all at once; of a larger one, those that are asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from imae.layers.layer import Shape
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.hdf5 import find_dataset, one_line, open_hdf5

WHOLE = 2**28
"""Bytes of a file's data up to which it is read at once and kept while its rows are asked for."""


class Hdf5File:
    """The data sets `names` of the HDF5 file at `path`, all of the same number of rows, `len`.

    Raises InputError, naming the file and the data set, where one is missing, has no rows of numbers, another number of
    rows than the first, or is kept in another file.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path, self._names = path, list(names)
        self._open: tuple[h5py.File, list[h5py.Dataset]] | None = None
        self._whole: dict[str, NDArray[Any]] = {}
        found = self._datasets()
        self.shapes: list[Shape] = [tuple(dataset.shape[1:]) for dataset in found]
        """Of a row of each data set."""
        self._count = len(found[0])
        self._fits = sum(dataset.size * dataset.dtype.itemsize for dataset in found) <= WHOLE
        self.close()

    def __len__(self) -> int:
        return self._count

    def read(self, name: str, rows: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Return `rows` of a data set, in their order, or all of them; raises InputError if they cannot be read."""
        try:
            dataset = self._datasets()[self._names.index(name)]
            if self._fits and name not in self._whole:
                self._whole[name] = dataset[()]
            if rows is None or name in self._whole:
                whole = self._whole[name] if name in self._whole else dataset[()]
                return whole if rows is None else whole[rows]
            if len(rows) and (np.diff(rows) == 1).all():
                part: NDArray[Any] = dataset[int(rows[0]) : int(rows[-1]) + 1]
                return part
            return np.stack([dataset[int(row)] for row in rows])
        except (OSError, RuntimeError, ValueError, MemoryError) as error:
            raise InputError(f'{self.path}: data set "{name}" cannot be read: {one_line(error)}') from error

    def close(self) -> None:
        """Close the file, and forget what was read of it; it opens again by itself."""
        self._whole = {}
        if self._open:
            self._open[0].close()
            self._open = None

    def _datasets(self) -> list[h5py.Dataset]:
        if self._open is None:
            file = open_hdf5(self.path)
            self._open = file, [self._checked(file, name) for name in self._names]
            counts = [len(dataset) for dataset in self._open[1]]
            for name, count in zip(self._names, counts, strict=True):
                if count != counts[0]:
                    raise InputError(
                        f'{self.path}: data set "{name}" has {count} rows, "{self._names[0]}" has {counts[0]}'
                    )
        return self._open[1]

    def _checked(self, file: h5py.File, name: str) -> h5py.Dataset:
        what = f'{self.path}: data set "{name}"'
        dataset = find_dataset(file, name, what)
        if not dataset.shape:
            raise InputError(f"{what} has no axis, expected rows")
        return dataset
