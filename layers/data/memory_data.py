"""MemoryData: arrays that the caller gives, batch by batch."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from imae.layers.data.data_layer import DataError, DataLayer
from imae.layers.layer import Shapes, describe
from imae.layers.values import as_tensor


class MemoryData(DataLayer):
    """Tops: B rows of the arrays given to `set_input_arrays`, from their first on, over and over; and their labels.

    The rows are given as they are: as with Caffe's `Reset`, `transform_param` has no part in it.
    """

    type = "MemoryData"
    _given: list[Tensor] | None = None
    """Of each top all batches, along a first axis."""
    _since = 0

    def setup(self, bottoms: Shapes) -> None:
        own: Any = self.param.memory_data_param
        self._shape = (own.batch_size, own.channels, own.height, own.width)
        if min(self._shape) < 1:
            raise self.error(
                f"memory_data_param needs batch_size, channels, height and width of at least 1, not "
                f"{describe(self._shape)}"
            )

    def reshape(self, bottoms: Shapes) -> Shapes:
        return [self._shape, self._shape[:1]][: len(self.param.top)]

    def set_input_arrays(self, data: Tensor | NDArray[Any], labels: Tensor | NDArray[Any]) -> None:
        """Give `data` (N x C x H x W) and `labels` (N numbers) from the next pass on.

        N is a multiple of the batch size. They are not copied where they are of the net's dtype. Raises InputError for
        arrays of other shapes.
        """
        dtype = torch.float64 if self.context.dtype == torch.float64 else torch.float32
        with self.naming():
            values, classes = (as_tensor(x, what) for x, what in ((data, "data"), (labels, "the array of labels")))
        size, expected = self._shape[0], "x".join(["N", *map(str, self._shape[1:])])
        if values.dim() != 4 or values.shape[1:] != self._shape[1:]:
            raise self.error(f"takes data of {expected}, not {describe(values.shape)}")
        if not len(values) or len(values) % size:
            raise self.error(f"takes a multiple of its batch_size {size} of rows, not {len(values)}")
        if classes.numel() != len(values) or (classes.dim() and len(classes) != len(values)):
            raise self.error(f"takes a label for each of {len(values)} rows, not labels of {describe(classes.shape)}")
        batches = (x.to(dtype).view(-1, size, *x.shape[1:]) for x in (values, classes.reshape(-1)))
        self._given = list(batches)[: len(self.param.top)]
        self._count = len(values) // size
        self._since = self.context.passes.number

    def forward(self, bottoms: Any, saved: Any) -> list[Tensor]:
        """Return the batch of this pass, on the calling thread: the next one may be of other arrays."""
        return self.batch(self.context.passes.number)

    def batch(self, number: int) -> list[Tensor]:
        """Return the tops of forward pass `number`; raises DataError before there are arrays."""
        if self._given is None:
            raise DataError(str(self.error("has no data yet: give it by set_input_arrays")))
        index = (number - self._since) // self.context.passes.stride % self._count
        tops, device = [batches[index] for batches in self._given], self.context.device
        return tops if device.type == "cpu" else [top.to(device) for top in tops]
