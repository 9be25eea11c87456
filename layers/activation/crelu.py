"""CReLU, of PVANet's Caffe: both signs of each channel, rectified."""

import torch

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe


class CReLU(Layer):
    """y = [max(x, 0), max(-x, 0)], one after the other along axis 1 (Shang et al. 2016)."""

    type = "CReLU"
    in_place = False
    capturable = True
    kept = Kept(tops=(0,))

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Twice the channels."""
        (shape,) = bottoms
        if len(shape) < 2:
            raise self.error(f"needs channels, found a bottom of {describe(shape)}")
        return [(shape[0], 2 * shape[1], *shape[2:])]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = [max(x, 0), max(-x, 0)]."""
        return [torch.cat([bottoms[0], -bottoms[0]], 1).clamp_min_(0)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy's first half where x > 0, less its second half where x < 0."""
        above, below = torch.ops.aten.threshold_backward(top_diffs[0], tops[0], 0).chunk(2, 1)
        return [above - below]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Neg, Concat, Relu."""
        both = graph.add("Concat", [bottoms[0], graph.add("Neg", bottoms)], axis=1)
        graph.node("Relu", [both], tops)
