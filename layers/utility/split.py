"""Split: one blob under several names."""

from functools import reduce

import torch

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors


class Split(Layer):
    """y_i = x for each top.

    Caffe puts it into a net where a blob has several readers, and files that it wrote may have it; a net here does
    without.
    """

    type = "Split"
    tops = (1, None)
    capturable = True
    kept = Kept()
    moves = True
    in_place = False

    def reshape(self, bottoms: Shapes) -> Shapes:
        return bottoms * len(self.param.top)

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return bottoms * len(self.param.top)

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = the sum of dy_i."""
        return [reduce(torch.add, top_diffs)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """No node: its tops are its bottom."""
        for top in tops:
            graph.node("Identity", bottoms, [top])
