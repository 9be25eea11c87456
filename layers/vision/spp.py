"""SPP: spatial pyramid pooling."""

import torch

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shape, Shapes, Tensors, describe
from imae.layers.vision.pooling import Pooling, PoolingGeometry
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter, PoolingParameter


class Level(Pooling):
    """The pooling of a bottom of size height x width into 2^level bins along each axis.

    The kernel, also the stride, is size / bins rounded up, and the padding half of what the bins have too much, rounded
    up: all of them together cover the bottom.
    """

    def __init__(self, pyramid: Layer, level: int, size: Shape) -> None:
        bins = 2**level
        kernel = [-(-along // bins) for along in size]
        pad = [(k * bins - along + 1) // 2 for k, along in zip(kernel, size, strict=True)]
        param = LayerParameter(name=f"{pyramid.name}_{level}", type="Pooling", bottom=["x"], top=["y"])
        param.pooling_param.CopyFrom(
            PoolingParameter(
                pool=pyramid.param.spp_param.pool,
                kernel_h=kernel[0],
                kernel_w=kernel[1],
                stride_h=kernel[0],
                stride_w=kernel[1],
                pad_h=pad[0],
                pad_w=pad[1],
            )
        )
        super().__init__(param, pyramid.context)
        self.phase = pyramid.phase
        self.pyramid, self.level = pyramid, level

    def error(self, message: str) -> InputError:
        """Return the InputError that names the pyramid's layer."""
        return self.pyramid.error(f"level {self.level} of its pyramid: {message}")


class SPP(Layer):
    """y[n] = the poolings of x[n] into 1, 2 x 2, 4 x 4, ... bins, `pyramid_height` of them, one after the other.

    He et al. 2014. Bottom: N x C x H x W; top: N x (C times the number of bins), or N x C x 1 x 1 for
    a pyramid of height 1.
    A level whose padding would be as large as a bin, such as 4 bins over 5 rows, is an error, as in Caffe.
    """

    type = "SPP"
    capturable = True
    kept = Kept(bottoms=(0,))  # x, as Pooling does
    geometry: tuple[PoolingGeometry, ...]
    """Of each level."""

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Make the levels for this size; a pyramid of one level is a pooling."""
        shape, height = bottoms[0], self.param.spp_param.pyramid_height
        if not height:
            raise self.error("pyramid_height is missing or 0")
        if len(shape) != 4:
            raise self.error(f"needs a bottom of 4 axes, found {describe(shape)}")
        self.levels: list[Level] = []
        tops: Shapes = []
        for i in range(height):
            level = Level(self, i, shape[2:])
            level.setup(bottoms)
            tops += level.reshape(bottoms)
            self.levels.append(level)
        self.geometry = tuple(level.geometry for level in self.levels)
        if height == 1:
            return tops
        return [(shape[0], sum(channels * rows * columns for _, channels, rows, columns in tops))]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = the levels' tops, flattened from the channels on."""
        levels: list[Saved] = [{} for _ in self.levels]
        saved["levels"] = levels
        tops = [level.forward(bottoms, kept)[0] for level, kept in zip(self.levels, levels, strict=True)]
        return tops if len(tops) == 1 else [torch.cat([top.flatten(1) for top in tops], 1)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = the sum of the levels' dx."""
        x, dy, first, dx = bottoms[0], top_diffs[0].flatten(1), 0, None
        for level, kept in zip(self.levels, saved["levels"], strict=True):
            pooled = level.geometry.pooled
            size = x.shape[1] * pooled[0] * pooled[1]
            part = dy[:, first : first + size].reshape(*x.shape[:2], *pooled)
            first += size
            (diff,) = level.backward(bottoms, [], [part], kept, [True])
            assert diff is not None
            dx = diff if dx is None else dx.add_(diff)
        return [dx]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """The levels' poolings, flattened and concatenated."""
        if len(self.levels) == 1:
            self.levels[0].to_onnx(graph, bottoms, tops)
            return
        flat = []
        for i, level in enumerate(self.levels):
            pooled = graph.name(f"{tops[0]}/level{i}")
            level.to_onnx(graph, bottoms, [pooled])
            flat.append(graph.add("Flatten", [pooled], axis=1))
        graph.node("Concat", flat, tops, axis=1)
