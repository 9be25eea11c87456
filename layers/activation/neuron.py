"""What layers that map each element of one bottom to one of the top share: Caffe's NeuronLayer."""

import torch
from torch import Tensor

from imae.layers.layer import Layer, Shapes


class Neuron(Layer):
    """y = f(x), element by element."""

    capturable = True

    def reshape(self, bottoms: Shapes) -> Shapes:
        return bottoms


def linear(x: Tensor, scale: float, shift: float) -> Tensor:
    """Return shift + scale x: in one pass over memory, and x itself where it is that."""
    if shift == 0:
        return x if scale == 1 else x * scale
    return torch.rsub(x, shift, alpha=-scale)
