"""Checks of values that are read as indices, such as labels."""

import torch
from torch import Tensor

from imae.layers.layer import Layer
from imae.prototxt_like.errors import InputError


def add_rows(to: Tensor, index: Tensor, rows: Tensor) -> None:
    """Add each of `rows` to the row of `to` at its index (int64), in the same order however many threads there are."""
    if to.is_cuda:
        to.index_put_((index,), rows, accumulate=True)  # sorts, where index_add_ takes them as they come
    else:
        to.index_add_(0, index, rows)  # sorts, where index_put_ takes them as they come


class IndexCheck:
    """Sees to it that each `what` of a layer is the index of one of the things called `of_what`."""

    def __init__(self, layer: Layer, what: str, of_what: str) -> None:
        self.layer, self.what, self.of_what = layer, what, of_what
        self.count = 0
        self._lowest, self._beyond = (torch.zeros((), dtype=torch.int64, device=layer.context.device) for _ in range(2))
        layer.context.checks.add(self.look)

    def checked(self, index: Tensor, count: int) -> Tensor:
        """Return `index` (int64), all of which must lie in 0 to `count` - 1.

        Raises InputError for one that does not; on a GPU, and in a pass that is captured, it is noted for `look`, and
        the nearest index is taken.
        """
        self.count = count
        if not index.numel():
            return index
        if self.layer.context.passes.on_device is not None or not index.is_cpu:
            self._lowest.copy_(torch.minimum(self._lowest, index.amin()))
            self._beyond.copy_(torch.maximum(self._beyond, index.amax() - (count - 1)))
            return index.clamp(0, count - 1)
        lowest, highest = index.aminmax()
        if int(lowest) < 0 or int(highest) >= count:
            raise self._out_of_range(int(index[(index < 0) | (index >= count)][0]))
        return index

    def gathered(self, values: Tensor, axis: int, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return `values` at `index` along `axis`, and `index`; the same errors, by one pass less on a CPU."""
        if self.layer.context.passes.on_device is not None or not index.is_cpu:
            index = self.checked(index, values.shape[axis])
        try:
            return values.gather(axis, index), index
        except RuntimeError:
            self.checked(index, values.shape[axis])
            raise

    def look(self) -> None:
        """Raise InputError if an index that is out of range was noted."""
        if self._lowest < 0:
            raise self._out_of_range(int(self._lowest))
        if self._beyond > 0:
            raise self._out_of_range(int(self._beyond) + self.count - 1)

    def _out_of_range(self, index: int) -> InputError:
        return self.layer.error(
            f"{self.what} {index} is out of range: there are {self.count} {self.of_what}, 0 to {self.count - 1}"
        )
