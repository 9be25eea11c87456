"""BNLL: the binomial normal log likelihood, also known as softplus."""

import torch
import torch.nn.functional as F

from imae.layers.activation.neuron import Neuron
from imae.layers.layer import Diffs, Kept, Saved, Tensors

LINEAR_FROM = 50
"""Where log(1 + exp(x)) is x in every precision: Caffe's kBNLL_THRESHOLD."""


class BNLL(Neuron):
    """y = log(1 + exp(x))."""

    type = "BNLL"
    onnx_operator = "Softplus"
    kept = Kept(bottoms=(0,))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return [F.softplus(bottoms[0], threshold=LINEAR_FROM)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy / (1 + exp(-x))."""
        return [torch.ops.aten.softplus_backward(top_diffs[0], bottoms[0], 1, LINEAR_FROM)]
