"""InnerProduct: the fully connected layer."""

import math

import torch.nn.functional as F
from torch import Tensor

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe


class InnerProduct(Layer):
    """y = x W' + b, x flattened from `axis` on: M x K, W: num_output x K (K x num_output where `transpose`)."""

    type = "InnerProduct"
    capturable = True
    kept = Kept(bottoms=(0,))

    def setup(self, bottoms: Shapes) -> None:
        param, shape = self.param.inner_product_param, bottoms[0]
        self.transpose = param.transpose
        if not param.num_output:
            raise self.error("num_output is missing or 0")
        size = math.prod(shape[self.axis(param.axis, shape) :])
        if not size:
            raise self.error(f"needs at least 1 input, found a bottom of {describe(shape)}")
        weight = (size, param.num_output) if self.transpose else (param.num_output, size)
        self.add_blob(weight, param.weight_filler)
        if param.bias_term:
            self.add_blob((param.num_output,), param.bias_filler)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The top keeps the axes before `axis`, then num_output; the geometry is `axis` and the bottom's shape."""
        param, shape = self.param.inner_product_param, bottoms[0]
        axis = self.axis(param.axis, shape)
        inputs = self.blobs[0].shape[0 if self.transpose else 1]
        if math.prod(shape[axis:]) != inputs:
            raise self.error(
                f"its weight has {inputs} inputs, a bottom of {describe(shape)} has {math.prod(shape[axis:])}: a fully "
                "connected layer takes one size only"
            )
        self.geometry = axis, shape
        return [(*shape[:axis], param.num_output)]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        x = self._rows(bottoms[0])
        bias = self.blobs[1].data.to(x.dtype) if len(self.blobs) > 1 else None
        return [F.linear(x, self._weight(x), bias)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dW = dy' x, db = sum of dy over M, dx = dy W."""
        x = self._rows(bottoms[0])
        x = x.reshape(-1, x.shape[-1])
        dy = top_diffs[0].reshape(-1, top_diffs[0].shape[-1])
        weight, *bias = self.blobs
        if weight.wants_diff:
            weight.diff += x.t() @ dy if self.transpose else dy.t() @ x
        if bias and bias[0].wants_diff:
            bias[0].diff += dy.sum(0)
        return [(dy @ self._weight(dy)).view(self.geometry[1]) if needs[0] else None]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Flatten and Gemm; Reshape and MatMul where rows span several axes."""
        axis, shape = self.geometry
        bias = [graph.constant(f"{self.name}_1", self.blobs[1].data)] if len(self.blobs) > 1 else []
        if axis == 1:
            flat = bottoms[0] if len(shape) == 2 else graph.add("Flatten", bottoms, axis=1)
            weight = graph.constant(f"{self.name}_0", self.blobs[0].data)
            graph.node("Gemm", [flat, weight, *bias], tops, transB=int(not self.transpose))
            return
        flat = bottoms[0] if len(shape) == axis + 1 else graph.reshape(bottoms[0], [0] * axis + [-1])
        weight = graph.constant(f"{self.name}_0", self.blobs[0].data if self.transpose else self.blobs[0].data.t())
        if bias:
            graph.node("Add", [graph.add("MatMul", [flat, weight]), *bias], tops)
        else:
            graph.node("MatMul", [flat, weight], tops)

    def _rows(self, x: Tensor) -> Tensor:
        axis, shape = self.geometry
        return x.reshape(*shape[:axis], math.prod(shape[axis:]))

    def _weight(self, like: Tensor) -> Tensor:
        """The weight as num_output x K, in the pass's precision."""
        weight = self.blobs[0].data.to(like.dtype)
        return weight.t() if self.transpose else weight
