"""Upsample, of SegNet's Caffe: maxima put back where pooling found them."""

import torch

from imae.layers.indices import IndexCheck
from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe


class Upsample(Layer):
    """y[mask[i]] = x[i] in each channel, 0 elsewhere: bottom 1 is the second top of a MAX pooling (its h W + w).

    The top's size is `upsample_h` x `upsample_w`, or the bottom's times `scale` (or `scale_h` and `scale_w`), less one
    with `pad_out_h` or `pad_out_w`. With one bottom, as in YOLO's Caffe, y repeats each x `scale` times along both.
    """

    type = "Upsample"
    bottoms = (1, 2)
    in_place = False
    capturable = True

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.upsample_param
        self.no_gradient_to = self.held_fixed = self.index_bottoms = frozenset({1} if len(bottoms) == 2 else ())
        for one, other in (("upsample_h", "upsample_w"), ("scale_h", "scale_w")):
            if param.HasField(one) != param.HasField(other):
                raise self.error(f"{one} and {other} are given together")
        if len(bottoms) == 1 and any(param.HasField(name) for name in ("upsample_h", "pad_out_h", "pad_out_w")):
            raise self.error("without a mask takes scale, or scale_h and scale_w, alone")
        self.scale = (param.scale_h, param.scale_w) if param.HasField("scale_h") else (param.scale, param.scale)
        if min(self.scale) < 1:
            raise self.error("scale must be at least 1")
        self._check = IndexCheck(self, "mask", "positions")

    def keeps(self) -> Kept:
        """The mask."""
        return Kept(bottoms=(1,) if len(self.param.bottom) == 2 else ())

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The geometry is the top's shape."""
        param, shape = self.param.upsample_param, bottoms[0]
        if len(shape) != 4 or any(other != shape for other in bottoms):
            raise self.error(f"needs bottoms of 4 axes alike, found {' and '.join(map(describe, bottoms))}")
        less = int(param.pad_out_h), int(param.pad_out_w)
        size = tuple(along * scale - by for along, scale, by in zip(shape[2:], self.scale, less, strict=True))
        self.geometry = (*shape[:2], *((param.upsample_h, param.upsample_w) if param.HasField("upsample_h") else size))
        if min(self.geometry[2:]) < 1:
            raise self.error(f"makes {describe(self.geometry)} of {describe(shape)}")
        return [self.geometry]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = x at the mask's positions, or each x repeated."""
        x = bottoms[0]
        if len(bottoms) == 1:
            return [x.repeat_interleave(self.scale[0], 2).repeat_interleave(self.scale[1], 3)]
        y = x.new_zeros((*self.geometry[:2], self.geometry[2] * self.geometry[3]))
        index = self._check.checked(bottoms[1].flatten(2).long(), y.shape[2])
        return [y.scatter_(2, index, x.flatten(2)).view(self.geometry)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy at the mask's positions, or the sum of dy over the copies."""
        dy = top_diffs[0]
        if len(needs) == 1:
            size = [along // scale for along, scale in zip(dy.shape[2:], self.scale, strict=True)]
            return [torch.ops.aten.upsample_nearest2d_backward(dy, dy.shape[2:], [*dy.shape[:2], *size])]
        mask = bottoms[1]
        index = mask.flatten(2).long().clamp(0, self.geometry[2] * self.geometry[3] - 1)
        return [dy.flatten(2).gather(2, index).view(mask.shape), None]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Resize, or ScatterElements on a plane of zeros."""
        if len(bottoms) == 1:
            scales = graph.constant(f"{self.name}/scales", torch.tensor([1.0, 1.0, *map(float, self.scale)]))
            settings = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            graph.node("Resize", [bottoms[0], "", scales], tops, **settings)
            return
        graph.whole = True
        channels, height, width = self.geometry[1:]
        index = graph.reshape(graph.cast(bottoms[1], "INT64"), [0, 0, -1])
        values = graph.reshape(bottoms[0], [0, 0, -1])
        rest = graph.constant(f"{self.name}/plane", [channels, height * width])
        shape = graph.add("Concat", [graph.sizes(bottoms[0], 0, 1), rest], axis=0)
        zeros = graph.add("Expand", [graph.constant(f"{self.name}/zero", 0.0), shape])
        flat = graph.add("ScatterElements", [zeros, index, values], axis=2)
        graph.reshape(flat, [0, 0, height, width], tops[0])
