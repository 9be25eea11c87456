"""Reduction: the sum of a blob's numbers, of their magnitudes or of their squares, or their mean."""

import math

from torch import Tensor

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors


class Reduction(Layer):
    """Over all axes from `axis` on (0 by default), times `coeff`.

    SUM: y = sum of x; ASUM: y = sum of |x|; SUMSQ: y = sum of x^2; MEAN: y = the mean of x.
    """

    type = "Reduction"
    capturable = True

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.reduction_param
        self.operation = param.ReductionOp.Name(param.operation)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The top keeps the axes before `axis`; the geometry is the axis, the bottom's shape and the whole factor."""
        param, shape = self.param.reduction_param, bottoms[0]
        axis = self.axis(param.axis, shape)
        count = math.prod(shape[axis:]) if self.operation == "MEAN" else 1
        self.geometry = axis, shape, param.coeff / count if count else math.copysign(math.inf, param.coeff)
        return [shape[:axis]]

    def keeps(self) -> Kept:
        """x, where the derivative depends on it."""
        return Kept(bottoms=(0,) if self.operation in ("ASUM", "SUMSQ") else ())

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        axis, shape, factor = self.geometry
        y = self._terms(bottoms[0]).sum(tuple(range(axis, len(shape))))
        return [y if factor == 1 else y * factor]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = coeff dy times 1, sign(x) or 2 x; over the count for the mean."""
        axis, shape, factor = self.geometry
        dy = (top_diffs[0] * factor).view(*shape[:axis], *[1] * (len(shape) - axis))
        if self.operation == "ASUM":
            return [bottoms[0].sign() * dy]
        if self.operation == "SUMSQ":
            return [bottoms[0] * (2 * dy)]
        return [dy.expand(shape)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """ReduceSum, over Abs or Mul, or ReduceMean; Mul by the coefficient."""
        axis, shape, _ = self.geometry
        terms, coeff = bottoms[0], self.param.reduction_param.coeff
        if self.operation == "ASUM":
            terms = graph.add("Abs", [terms])
        elif self.operation == "SUMSQ":
            terms = graph.add("Mul", [terms, terms])
        op = "ReduceMean" if self.operation == "MEAN" else "ReduceSum"
        reduced = graph.reduce(op, terms, range(axis, len(shape)), keepdims=False)
        graph.node("Mul", [reduced, graph.constant(f"{self.name}/coeff", coeff)], tops)

    def _terms(self, x: Tensor) -> Tensor:
        if self.operation == "ASUM":
            return x.abs()
        return x.square() if self.operation == "SUMSQ" else x
