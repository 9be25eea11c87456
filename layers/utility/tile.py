"""Tile: copies of a blob along one axis."""

import torch

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors


class Tile(Layer):
    """y = `tiles` copies of x, one after the other along `axis`."""

    type = "Tile"
    capturable = True
    kept = Kept()
    moves = True

    def setup(self, bottoms: Shapes) -> None:
        if self.param.tile_param.tiles < 1:
            raise self.error("tiles, the number of copies, is missing or below 1")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The top is `tiles` times as long along the axis; the geometry is the axis and the bottom's shape."""
        param, shape = self.param.tile_param, bottoms[0]
        axis = self.axis(param.axis, shape)
        self.geometry = axis, shape
        return [(*shape[:axis], shape[axis] * param.tiles, *shape[axis + 1 :])]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        axis, shape = self.geometry
        tiles = self.param.tile_param.tiles
        copies = bottoms[0].unsqueeze(axis).expand(*shape[:axis], tiles, *shape[axis:])
        return [copies.reshape(*shape[:axis], shape[axis] * tiles, *shape[axis + 1 :])]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = the sum of dy over the copies."""
        axis, shape = self.geometry
        return [top_diffs[0].reshape(*shape[:axis], self.param.tile_param.tiles, *shape[axis:]).sum(axis)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        axis, shape = self.geometry
        copies = torch.ones(len(shape), dtype=torch.int64)
        copies[axis] = self.param.tile_param.tiles
        graph.node("Tile", [*bottoms, graph.constant(f"{self.name}/copies", copies)], tops)
