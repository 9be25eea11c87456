"""Shortcut: the parameter-free shortcut of a residual block that changes the shape."""

import torch
from torch import Tensor

from imae.layers.layer import Layer, Saved, Shapes, describe, register
from imae.layers.onnx_graph import OnnxGraph


@register
class Shortcut(Layer):
    """y[n, c, h, w] = x[n, c, stride h, stride w] for the channels of x, and 0 for those after them, to num_output.

    Option A of He et al. 2016. Bottom: N x C x H x W; top: N x num_output x H/stride x W/stride, rounded up.
    """

    type = "Shortcut"
    capturable = True
    by_image = True

    def setup(self, bottoms: Shapes) -> Shapes:
        """Check num_output and stride against the bottom."""
        param, shape = self.param.shortcut_param, bottoms[0]
        self.stride = param.stride
        if len(shape) != 4:
            raise self.error(f"needs a bottom of 4 axes, found {describe(shape)}")
        if param.num_output < shape[1]:
            raise self.error(f"num_output must be at least the bottom's {shape[1]} channels, not {param.num_output}")
        if self.stride < 1:
            raise self.error("stride must be at least 1")
        self.zeros = param.num_output - shape[1]
        return [(shape[0], param.num_output, *(-(-size // self.stride) for size in shape[2:]))]

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """y = every stride-th position of x, zeros appended."""
        saved["x"] = x = bottoms[0]
        kept = x[:, :, :: self.stride, :: self.stride]
        n, channels, height, width = kept.shape
        y = x.new_empty(n, height, width, channels + self.zeros).permute(0, 3, 1, 2)  # channels last, as all images are
        y[:, :channels].copy_(kept)
        y[:, channels:].zero_()
        return [y]

    def backward(self, top_diffs: list[Tensor], saved: Saved, needs: list[bool]) -> list[Tensor | None]:
        """dx = dy at those positions, 0 elsewhere."""
        dx = torch.zeros_like(saved["x"])
        dx[:, :, :: self.stride, :: self.stride] = top_diffs[0][:, : dx.shape[1]]
        return [dx]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Slice, then Pad."""
        ends = torch.iinfo(torch.int64).max
        bounds = {"starts": [0, 0], "ends": [ends, ends], "axes": [2, 3], "steps": [self.stride] * 2}
        constants = [graph.constant(f"{self.name}_{name}", torch.tensor(value)) for name, value in bounds.items()]
        pads = graph.constant(f"{self.name}_pads", torch.tensor([0, 0, 0, 0, 0, self.zeros, 0, 0]))
        graph.node("Pad", [graph.add("Slice", [*bottoms, *constants]), pads], tops)
