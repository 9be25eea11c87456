"""ReLU6, of MobileNet's Caffe: a rectifier with a ceiling."""

import torch

from imae.layers.activation.neuron import Neuron
from imae.layers.layer import Diffs, Kept, OnnxGraph, Saved, Tensors


class ReLU6(Neuron):
    """y = min(max(x, 0), 6)."""

    type = "ReLU6"
    kept = Kept(tops=(0,))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = min(max(x, 0), 6)."""
        return [bottoms[0].clamp(0, 6)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy where 0 < x < 6, 0 elsewhere."""
        return [torch.ops.aten.hardtanh_backward(top_diffs[0], tops[0], 0, 6)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Clip."""
        bounds = [graph.constant(f"{self.name}/{bound:g}", bound) for bound in (0.0, 6.0)]
        graph.node("Clip", [*bottoms, *bounds], tops)
