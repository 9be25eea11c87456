"""Dropout, scaled at training time."""

import torch

from imae.layers.activation.neuron import Neuron
from imae.layers.layer import Diffs, Kept, OnnxGraph, Saved, Shapes, Tensors
from imae.layers.random_streams import random_uniform


class Dropout(Neuron):
    """TRAIN: y = x mask / (1 - ratio), each mask element 0 with probability `dropout_ratio`, else 1; TEST: y = x.

    The mask is a function of the net's seed, the layer's name and the number of the forward pass. Of forks: with
    `scale_train: false` TRAIN is y = x mask, and TEST y = x (1 - ratio); with `sample_weights_test` TEST is as TRAIN.
    """

    type = "Dropout"
    kept = Kept()

    def setup(self, bottoms: Shapes) -> None:
        self.ratio = self.param.dropout_param.dropout_ratio
        if not 0 <= self.ratio < 1:
            raise self.error(f"dropout_ratio must lie between 0 and 1, not {self.ratio:g}")
        self.drops = self.ratio > 0 and (self.training or self.param.dropout_param.sample_weights_test)
        scaled = self.param.dropout_param.scale_train
        self.factor: float = 1
        if self.drops == scaled:
            self.factor = 1 / (1 - self.ratio) if scaled else 1 - self.ratio

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        x = bottoms[0]
        if not self.drops:
            return [x if self.factor == 1 else x * self.factor]
        counter = self.context.passes.counters(x.numel()).view(x.shape)
        kept = random_uniform(self.context.passes.seed, self.name, counter)
        saved["mask"] = mask = torch.ge(kept, self.ratio, out=torch.empty_like(x)).mul_(self.factor)
        return [x * mask]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy mask / (1 - ratio), in TEST dy."""
        if not self.drops and self.factor == 1:
            return [top_diffs[0]]
        return [top_diffs[0] * saved.get("mask", self.factor)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """No node; Mul with `scale_train: false`."""
        if self.drops:
            cause = "phase: TRAIN" if self.training else "sample_weights_test: true"
            raise self.error(f"has no ONNX form with {cause}, by which it drops at random: leave that out")
        if self.factor == 1:
            graph.node("Identity", bottoms, tops)
        else:
            graph.node("Mul", [*bottoms, graph.constant(f"{self.name}/factor", self.factor)], tops)
