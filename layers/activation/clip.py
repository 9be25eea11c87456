"""Clip: values held between two bounds."""

import torch

from imae.layers.activation.neuron import Neuron
from imae.layers.layer import Diffs, Kept, OnnxGraph, Saved, Shapes, Tensors


class Clip(Neuron):
    """y = max(`min`, min(x, `max`)); `min` everywhere if it is the larger one."""

    type = "Clip"
    kept = Kept(bottoms=(0,))  # x: whether y is at a bound does not tell if x was

    def setup(self, bottoms: Shapes) -> None:
        if not self.param.HasField("clip_param"):
            raise self.error("needs a clip_param with min and max")
        self.min, self.max = self.param.clip_param.min, self.param.clip_param.max

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return [bottoms[0].clamp(self.min, max(self.min, self.max))]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy where min <= x <= max, 0 elsewhere."""
        x = bottoms[0]
        above, below = torch.ge(x, self.min, out=torch.empty_like(x)), torch.le(x, self.max, out=torch.empty_like(x))
        return [above.mul_(below).mul_(top_diffs[0])]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Min, then Max, as Clip leaves open what it gives where the bounds are the wrong way round."""
        low, high = (
            graph.constant(f"{self.name}_{what}", torch.tensor(bound))
            for what, bound in (("min", self.min), ("max", self.max))
        )
        graph.node("Max", [graph.add("Min", [bottoms[0], high]), low], tops)
