"""ArgMax: where the largest values are, and how large."""

import math

import torch
from torch import Tensor

from imae.layers.layer import Context, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe
from imae.prototxt_like.schema import LayerParameter


class ArgMax(Layer):
    """The indices of the `top_k` largest values, in descending order; of equal values the last one comes first.

    With `axis` they are those along it, and `out_max_val` gives the values in their place. Without, they are those of
    each item, N x 1 x top_k (and axes of 1, if the bottom has more than three), and `out_max_val` gives the values
    behind the indices, N x 2 x top_k. There is no derivative.
    """

    type = "ArgMax"
    no_gradient_to = frozenset({0})
    no_gradient_from = frozenset({0})
    capturable = True
    kept = Kept()

    def __init__(self, param: LayerParameter, context: Context | None = None) -> None:
        super().__init__(param, context)
        self.top_k, self.along_axis = param.argmax_param.top_k, param.argmax_param.HasField("axis")
        self.values = param.argmax_param.out_max_val
        self.index_tops = frozenset() if self.values and self.along_axis else frozenset({0})

    def reshape(self, bottoms: Shapes) -> Shapes:
        """There are at least top_k values; the geometry is the axis and the top's shape."""
        shape = bottoms[0]
        if not shape:
            raise self.error("its bottom is a scalar; expected an axis or more")
        if self.along_axis:
            axis = self.axis(self.param.argmax_param.axis, shape)
            size = shape[axis]
            top = (*shape[:axis], self.top_k, *shape[axis + 1 :])
        else:
            axis, size = 1, math.prod(shape[1:])
            top = (shape[0], 2 if self.values else 1, self.top_k, *[1] * (len(shape) - 3))
        if not 1 <= self.top_k <= size:
            raise self.error(f"top_k must be 1 to {size} for a bottom of shape {describe(shape)}, not {self.top_k}")
        self.geometry = axis, top
        return [top]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        axis, top = self.geometry
        x = bottoms[0]
        if not self.along_axis:
            x = x.reshape(len(x), math.prod(x.shape[1:]))
        values, index = self._largest(x, axis)
        if self.along_axis and self.values:
            return [values]
        dtype = torch.promote_types(x.dtype, torch.float32)
        y = torch.stack([index.to(dtype), values.to(dtype)], 1) if self.values else index.to(dtype)
        return [y.reshape(top)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """ArgMax that takes the last index, or TopK, which takes the first, in reverse; values by GatherElements."""
        axis, top = self.geometry
        x = bottoms[0] if self.along_axis else graph.add("Flatten", bottoms, axis=1)
        if self.top_k == 1:
            index = graph.add("ArgMax", [x], axis=axis, keepdims=1, select_last_index=1)
        else:
            along = graph.constant(f"{self.name}/axis", [axis])
            bounds = [graph.constant(f"{self.name}/bound", [at]) for at in (-1, torch.iinfo(torch.int64).min)]
            backwards = graph.add("Slice", [x, *bounds, along, graph.constant(f"{self.name}/step", [-1])])
            place = graph.name(f"{x}/place")
            k = graph.constant(f"{self.name}/k", [self.top_k])
            graph.node("TopK", [backwards, k], [graph.name(f"{x}/largest"), place], axis=axis)
            last = graph.add("Sub", [graph.sizes(x, axis, axis + 1), graph.constant(f"{self.name}/one", [1])])
            index = graph.add("Sub", [last, place])
        if self.values and self.along_axis:
            graph.node("GatherElements", [x, index], tops, axis=axis)
            return
        parts = [graph.cast(index, "FLOAT")]
        if self.values:
            parts.append(graph.add("GatherElements", [x, index], axis=axis))
        if self.along_axis:
            graph.node("Identity", parts, tops)
        else:
            graph.reshape(graph.add("Concat", parts, axis=1), [0, *top[1:]], tops[0])

    def _largest(self, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """The top_k largest values along the axis, and their indices; of equal values the last one comes first."""
        size = x.shape[axis]
        if self.top_k == 1:
            values, dtype = x.amax(axis, keepdim=True), torch.promote_types(x.dtype, torch.float32)
            is_largest = torch.eq(x, values, out=torch.empty_like(x, dtype=dtype))
            place = torch.arange(size, dtype=dtype, device=x.device).view(-1, *[1] * (x.dim() - axis - 1))
            return values, is_largest.mul_(place).amax(axis, keepdim=True)
        if self.context.passes.on_device is None and x.device.type == "cpu":
            values, index = x.topk(min(self.top_k + 1, size), axis)  # many times as fast as sorting all
            pairs = values.shape[axis] - 1
            if (values.narrow(axis, 0, pairs) > values.narrow(axis, 1, pairs)).all():  # no ties, whose order is open
                return values.narrow(axis, 0, self.top_k), index.narrow(axis, 0, self.top_k)
        values, index = x.flip(axis).sort(dim=axis, descending=True, stable=True)
        return values.narrow(axis, 0, self.top_k), size - 1 - index.narrow(axis, 0, self.top_k)
