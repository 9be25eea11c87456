"""DummyData: blobs from fillers, to try or time a net without data."""

from typing import Any

import torch
from torch import Tensor

from imae.layers.data.data_layer import DataLayer
from imae.layers.fillers import fill
from imae.layers.layer import Shape, Shapes, describe
from imae.layers.random_streams import random_bits
from imae.prototxt_like.errors import counted
from imae.prototxt_like.schema import FillerParameter

_SIZES = ("num", "channels", "height", "width")


class DummyData(DataLayer):
    """Tops: as many blobs as are asked for, each of its `shape` (or the old four sizes), filled by its `data_filler`.

    One shape, or filler, is for all tops; without a filler they are 0. What a constant filler gives is the same in each
    pass; others draw anew, as a function of the net's seed and the pass's number.
    """

    type = "DummyData"
    tops = (1, None)

    def setup(self, bottoms: Shapes) -> None:
        """Check shapes and fillers, and fill what is constant."""
        self._own: Any = self.param.dummy_data_param
        count = len(self.param.top)
        fillers = list(self._own.data_filler) or [FillerParameter(type="constant")]
        if len(fillers) not in (1, count):
            raise self.error(f"data_filler must be given once, or for each of its {counted(count, 'top')}")
        self._fillers = fillers if len(fillers) == count else fillers * count
        self._shapes = self._shapes_asked_for(count)
        for shape in self._shapes:
            if any(size < 1 for size in shape):
                raise self.error(f"its top would be {describe(shape)}, expected sizes of 1 or more")
            self.check_size("top", shape)
        first = [self._filled(i, 0) for i in range(count)]
        self._constant = {i: x for i, x in enumerate(first) if self._fillers[i].type == "constant"}

    def reshape(self, bottoms: Shapes) -> Shapes:
        return self._shapes

    def batch(self, number: int) -> list[Tensor]:
        return [self._constant[i] if i in self._constant else self._filled(i, number) for i in range(len(self._shapes))]

    def _shapes_asked_for(self, count: int) -> list[Shape]:
        columns = [list(getattr(self._own, name)) for name in _SIZES]
        shapes = [tuple(shape.dim) for shape in self._own.shape]
        if any(columns):
            if shapes:
                raise self.error("dummy_data_param has both shape and num, channels, height or width")
            for name, column in zip(_SIZES, columns, strict=True):
                self._check_count(name, len(column), count)
            wide = [column if len(column) == count else column * count for column in columns]
            return [*zip(*wide, strict=True)]
        self._check_count("shape", len(shapes), count)
        return shapes if len(shapes) == count else shapes * count

    def _check_count(self, name: str, given: int, count: int) -> None:
        if given not in (1, count):
            tops = counted(count, "top")
            raise self.error(f"dummy_data_param needs {name} once, or once for each of its {tops}, not {given} times")

    def _filled(self, top: int, number: int) -> Tensor:
        shape, dtype = self._shapes[top], self.context.dtype
        draw = random_bits(self.context.passes.seed, f"{self.name} {top}", torch.tensor(number))
        try:
            data = torch.empty(shape, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        except RuntimeError:  # PyTorch's allocator, at length
            raise self.error(f"out of memory for its top of {describe(shape)}") from None
        with self.naming():
            fill(data, self._fillers[top], torch.Generator().manual_seed(int(draw)))
        return data.to(self.context.device)
