"""Dropout, scaled at training time."""

import torch

from imae.layers.activation.neuron import Neuron
from imae.layers.layer import Diffs, Kept, OnnxGraph, Saved, Shapes, Tensors
from imae.layers.random_streams import random_uniform


class Dropout(Neuron):
    """TRAIN: y = x mask / (1 - ratio), each mask element 0 with probability `dropout_ratio`, else 1; TEST: y = x.

    The mask is a function of the net's seed, the layer's name and the number of the forward pass.
    """

    type = "Dropout"
    kept = Kept()

    def setup(self, bottoms: Shapes) -> None:
        self.ratio = self.param.dropout_param.dropout_ratio
        if not 0 <= self.ratio < 1:
            raise self.error(f"dropout_ratio must lie between 0 and 1, not {self.ratio:g}")

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        x = bottoms[0]
        if not self.training or not self.ratio:
            return [x]
        counter = self.context.passes.counters(x.numel()).view(x.shape)
        kept = random_uniform(self.context.passes.seed, self.name, counter)
        saved["mask"] = mask = torch.ge(kept, self.ratio, out=torch.empty_like(x)).mul_(1 / (1 - self.ratio))
        return [x * mask]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy mask / (1 - ratio)."""
        return [top_diffs[0] * saved["mask"] if "mask" in saved else top_diffs[0]]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """No node."""
        if self.training and self.ratio:
            raise self.error("has no ONNX form in phase TRAIN, in which it drops at random: leave out its phase: TRAIN")
        graph.node("Identity", bottoms, tops)
