"""Shortcut: the parameter-free shortcut of a residual block that changes the shape."""

import torch

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe


class Shortcut(Layer):
    """y[n, c, h, w] = x[n, c, stride h, stride w] for the channels of x, and 0 for those after them, to num_output.

    Option A of He et al. 2016. Bottom: N x C x H x W; top: N x num_output x H/stride x W/stride, rounded up.
    """

    type = "Shortcut"
    capturable = True
    kept = Kept()

    def setup(self, bottoms: Shapes) -> None:
        self.stride = self.param.shortcut_param.stride
        if self.stride < 1:
            raise self.error("stride must be at least 1")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Check num_output against the bottom; the geometry is the bottom's shape and the number of added channels."""
        param, shape = self.param.shortcut_param, bottoms[0]
        if len(shape) != 4:
            raise self.error(f"needs a bottom of 4 axes, found {describe(shape)}")
        if param.num_output < shape[1]:
            raise self.error(f"num_output must be at least the bottom's {shape[1]} channels, not {param.num_output}")
        self.geometry = shape, param.num_output - shape[1]
        return [(shape[0], param.num_output, *(-(-size // self.stride) for size in shape[2:]))]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        x, zeros = bottoms[0], self.geometry[1]
        kept = x[:, :, :: self.stride, :: self.stride]
        n, channels, height, width = kept.shape
        y = x.new_empty(n, height, width, channels + zeros).permute(0, 3, 1, 2)  # channels last, as all images are
        y[:, :channels].copy_(kept)
        y[:, channels:].zero_()
        return [y]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy at those positions, 0 elsewhere."""
        (n, channels, height, width), _ = self.geometry
        dx = top_diffs[0].new_zeros(n, height, width, channels).permute(0, 3, 1, 2)
        dx[:, :, :: self.stride, :: self.stride] = top_diffs[0][:, :channels]
        return [dx]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        ends = torch.iinfo(torch.int64).max
        bounds = {"starts": [0, 0], "ends": [ends, ends], "axes": [2, 3], "steps": [self.stride] * 2}
        constants = [graph.constant(f"{self.name}_{name}", torch.tensor(value)) for name, value in bounds.items()]
        pads = graph.constant(f"{self.name}_pads", torch.tensor([0, 0, 0, 0, 0, self.geometry[1], 0, 0]))
        graph.node("Pad", [graph.add("Slice", [*bottoms, *constants]), pads], tops)
