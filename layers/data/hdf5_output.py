"""HDF5Output: writes two blobs to an HDF5 file, pass by pass."""

from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imae.layers.layer import Kept, Layer, Saved, Shapes, Tensors, describe, with_four_axes

_DATASETS = ("data", "label")


class HDF5Output(Layer):
    """Writes its bottoms to the data sets `data` and `label` of `file_name`, with four axes each, as Caffe does.

    The first pass makes the file, anew if there is one; each further pass adds its rows. HDF5Data reads what it wrote.
    """

    type = "HDF5Output"
    bottoms = (2, 2)
    tops = (0, 0)
    no_gradient_to = frozenset({0, 1})
    _rows = 0
    kept = Kept()

    def setup(self, bottoms: Shapes) -> None:
        if not self.param.hdf5_output_param.file_name:
            raise self.error("hdf5_output_param needs file_name, the file to write")
        self._path = Path(self.param.hdf5_output_param.file_name)

    def reshape(self, bottoms: Shapes) -> Shapes:
        for shape in bottoms:
            if len(shape) > 4:
                raise self.error(f"writes blobs of up to 4 axes, not {describe(shape)}")
        first, second = (with_four_axes(shape) for shape in bottoms)
        if first[0] != second[0]:
            raise self.error(f"its bottoms have {first[0]} and {second[0]} rows, expected as many")
        return []

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Write or add the rows; raises InputError if the file cannot be written."""
        try:
            with h5py.File(self._path, "r+" if self._rows else "w") as file:
                for name, bottom in zip(_DATASETS, bottoms, strict=True):
                    self._add(file, name, self._values(bottom))
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise self.error(f"{self._path}: cannot be written: {' '.join(str(error).split())}") from error
        self._rows += with_four_axes(tuple(bottoms[0].shape))[0]
        return []

    def _add(self, file: h5py.File, name: str, values: NDArray[np.floating]) -> None:
        if not self._rows:
            file.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]))
            return
        if file[name].shape[1:] != values.shape[1:]:
            before, now = describe(file[name].shape[1:]), describe(values.shape[1:])
            raise ValueError(f'a row of "{name}" is {now}, those before were {before}')
        file[name].resize(self._rows + len(values), axis=0)
        file[name][self._rows :] = values

    def _values(self, bottom: Tensor) -> NDArray[np.floating]:
        dtype = torch.float64 if bottom.dtype == torch.float64 else torch.float32
        values: NDArray[np.floating] = (
            bottom.detach().to("cpu", dtype).reshape(with_four_axes(tuple(bottom.shape))).numpy()
        )
        return values
