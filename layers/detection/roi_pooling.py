"""ROIPooling, of Fast R-CNN's Caffe: the largest elements of a grid on each region of interest."""

import importlib

import torch

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe
from imae.layers.loss.loss_layer import at_least_float32


class ROIPooling(Layer):
    """y (R x C x `pooled_h` x `pooled_w`): maxima over the cells of regions, 0 for a cell that is empty.

    Bottoms: features (N x C x H x W), regions (R x 5: image, x1, y1, x2, y2, both ends included), whose corners times
    `spatial_scale` are rounded. Girshick 2015, Section 2.1; computed by torchvision.
    """

    type = "ROIPooling"
    last_opset = 21
    bottoms = (2, 2)
    no_gradient_to = held_fixed = index_bottoms = frozenset({1})
    in_place = False
    kept = Kept(bottoms=(1,))

    def setup(self, bottoms: Shapes) -> None:
        """Check the settings."""
        param = self.param.roi_pooling_param
        if not param.pooled_h or not param.pooled_w:
            raise self.error("needs pooled_h and pooled_w above 0")
        if not param.spatial_scale > 0:
            raise self.error(f"spatial_scale must be above 0, not {param.spatial_scale:g}")
        self.pooled = param.pooled_h, param.pooled_w
        importlib.import_module("torchvision")  # which registers the kernels

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The geometry is the shape of the features."""
        features, regions = bottoms
        if len(features) != 4 or not regions or torch.Size(regions[1:]).numel() != 5:
            raise self.error(
                f"needs features of 4 axes and regions of R x 5, found {describe(features)} and {describe(regions)}"
            )
        self.geometry = features
        return [(regions[0], features[1], *self.pooled)]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = the maxima."""
        features = at_least_float32(bottoms[0]).contiguous()
        regions = bottoms[1].flatten(1).to(features.dtype).contiguous()
        outside = (regions[:, 0] < 0) | (regions[:, 0] >= len(features))
        if outside.any():
            raise self.error(f"a region is of image {regions[outside][0, 0]:g}, there are {len(features)}")
        scale = self.param.roi_pooling_param.spatial_scale
        y, saved["places"] = torch.ops.torchvision.roi_pool(features, regions, scale, *self.pooled)
        return [y.to(bottoms[0].dtype)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = the sum of dy of the cells of which an element is the maximum."""
        dy = at_least_float32(top_diffs[0]).contiguous()
        regions, scale = bottoms[1].flatten(1).to(dy.dtype).contiguous(), self.param.roi_pooling_param.spatial_scale
        settings = scale, *self.pooled, *self.geometry
        dx = torch.ops.torchvision._roi_pool_backward(dy, regions, saved["places"], *settings)
        return [dx.to(top_diffs[0].dtype), None]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """MaxRoiPool."""
        regions = graph.reshape(bottoms[1], [-1, 5])
        scale = self.param.roi_pooling_param.spatial_scale
        graph.node("MaxRoiPool", [bottoms[0], regions], tops, pooled_shape=list(self.pooled), spatial_scale=scale)
