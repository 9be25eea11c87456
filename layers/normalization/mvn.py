"""MVN: each channel, or each image, brought to mean 0 and variance 1."""

import torch

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shape, Shapes, Tensors, describe, with_four_axes
from imae.layers.values import at_least_float32

SMALLEST = 1e-36
"""What is added to a variance so that nothing is divided by 0."""


class MVN(Layer):
    """y = (x - mean) / (std + eps), over height and width, or with `across_channels` over each image as a whole.

    Without `normalize_variance`, y = x - mean. The top has 4 axes, as Caffe's: sizes of 1 stand behind the bottom's.
    Computed in float32 at least. Caffe's gradient holds (std + eps) / std for 1, and so does this one.
    """

    type = "MVN"
    capturable = True
    geometry: tuple[Shape, Shape]
    """The shapes of bottom and top."""

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.mvn_param
        self.normalize, self.eps = param.normalize_variance, param.eps
        self.over = [1, 2, 3] if param.across_channels else [2, 3]

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The bottom's shape as 4 axes."""
        shape = bottoms[0]
        if len(shape) > 4:
            raise self.error(f"takes a bottom of at most 4 axes, found {describe(shape)}")
        if 0 in shape[1:]:
            raise self.error(f"has no statistics of a bottom of {describe(shape)}")
        self.geometry = shape, with_four_axes(shape)
        return [self.geometry[1]]

    def keeps(self) -> Kept:
        """x, for the variance's part in the gradient."""
        return Kept(bottoms=(0,) if self.normalize else ())

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        x = at_least_float32(bottoms[0].reshape(self.geometry[1]))
        if not self.normalize:
            return [x.sub(x.mean(self.over, keepdim=True)).to(bottoms[0].dtype)]
        y, mean, scale = torch.native_layer_norm(x, x.shape[self.over[0] :], None, None, SMALLEST)
        std = 1 / scale
        saved.update(mean=mean, std=std)
        by_eps = std / (std + self.eps)
        # Where it is 1 throughout, as for all but flat images, a pass over all numbers is spared.
        captured = self.context.passes.on_device is not None or x.device.type != "cpu"
        if captured or not (by_eps == 1).all():
            y.mul_(by_eps)
        return [y.to(bottoms[0].dtype)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = (dy - mean(dy) - y mean(y dy)) / (std + eps); without the variance dy - mean(dy)."""
        dy = at_least_float32(top_diffs[0])
        if self.normalize:
            x = at_least_float32(bottoms[0]).reshape(dy.shape)
            mean, factor = saved["mean"], 1 / (saved["std"] + self.eps)
            dx, _, _ = torch.ops.aten.native_layer_norm_backward(
                dy, x, x.shape[self.over[0] :], mean, factor, None, None, [True, False, False]
            )
        else:
            dx = dy - dy.mean(self.over, keepdim=True)
        return [dx.to(top_diffs[0].dtype).reshape(self.geometry[0])]

    def surrogate(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """As forward, but that the standard deviation changes by std / (std + eps) of what it does."""
        if not self.normalize:
            return self.forward(bottoms, {})
        now: Saved = {}
        y, std = self.forward(bottoms, now)[0], saved["std"]
        slowed = std + (now["std"] - std) * std / (std + self.eps)
        return [y * (now["std"] + self.eps) / (slowed + self.eps)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """The formula, step by step, by ReduceMean."""
        missing = range(len(self.geometry[0]), 4)
        x = graph.unsqueeze(bottoms[0], missing) if missing else bottoms[0]
        y = [x, graph.reduce("ReduceMean", x, self.over, keepdims=True)]
        if not self.normalize:
            graph.node("Sub", y, tops)
            return
        difference = graph.add("Sub", y)
        squares = graph.add("Mul", [difference, difference])
        std = graph.add("Sqrt", [graph.reduce("ReduceMean", squares, self.over, keepdims=True)])
        graph.node("Div", [difference, graph.add("Add", [std, graph.constant(f"{self.name}_eps", self.eps)])], tops)
