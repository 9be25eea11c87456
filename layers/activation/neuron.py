"""What layers that map each element of one bottom to one of the top share: Caffe's NeuronLayer."""

from typing import ClassVar

import torch
from torch import Tensor

from imae.layers.layer import Layer, OnnxGraph, Shapes


class Neuron(Layer):
    """y = f(x), element by element."""

    capturable = True
    onnx_operator: ClassVar[str]
    """The operator of ONNX's that is the function, or a layer writes `to_onnx`."""

    def reshape(self, bottoms: Shapes) -> Shapes:
        return bottoms

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        graph.node(self.onnx_operator, bottoms, tops)


def linear(x: Tensor, scale: float, shift: float) -> Tensor:
    """Return shift + scale x: in one pass over memory, and x itself where it is that."""
    if shift == 0:
        return x if scale == 1 else x * scale
    return torch.rsub(x, shift, alpha=-scale)
