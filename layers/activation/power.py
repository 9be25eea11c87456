"""Power: a power of a linear function."""

import torch

from imae.layers.activation.neuron import Neuron, linear
from imae.layers.layer import Diffs, Kept, OnnxGraph, Saved, Shapes, Tensors


class Power(Neuron):
    """y = (`shift` + `scale` x) ^ `power`; a number where scale or power is 0, which is 1 for a power of 0."""

    type = "Power"

    def setup(self, bottoms: Shapes) -> None:
        """Read the settings, and find the number that y is where x has no say."""
        param = self.param.power_param
        self.power, self.scale, self.shift = param.power, param.scale, param.shift
        self.constant: float | None = None
        if self.power * self.scale == 0:
            self.constant = float(torch.tensor(self.shift).pow(self.power))

    def keeps(self) -> Kept:
        """x, if the derivative depends on it."""
        return Kept(bottoms=() if self.constant is not None or self.power == 1 else (0,))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        x = bottoms[0]
        if self.constant is not None:
            return [torch.full_like(x, self.constant)]
        base = linear(x, self.scale, self.shift)
        return [base if self.power == 1 else base.pow(self.power)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = power scale (shift + scale x) ^ (power - 1) dy."""
        dy, factor = top_diffs[0], self.power * self.scale
        if self.constant is not None:
            return [torch.zeros_like(dy)]
        if self.power == 1:
            return [dy if factor == 1 else dy * factor]
        base = linear(bottoms[0], self.scale, self.shift)
        dx = dy * (base if self.power == 2 else base.pow(self.power - 1))
        return [dx if factor == 1 else dx.mul_(factor)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Mul and Add, then Pow; where x has no say, x times 0, plus the number."""
        settings = {"scale": self.scale, "shift": self.shift, "power": self.power}
        if self.constant is not None:
            settings = {"scale": 0.0, "shift": self.constant, "power": 1.0}
        scale, shift, power = (
            graph.constant(f"{self.name}_{what}", torch.tensor(value)) for what, value in settings.items()
        )
        linear = [graph.add("Mul", [bottoms[0], scale]), shift]
        if settings["power"] == 1:
            graph.node("Add", linear, tops)
        else:
            graph.node("Pow", [graph.add("Add", linear), power], tops)
