"""Interp, of DeepLab's and PSPNet's Caffe: bilinear resizing whose corners coincide."""

import torch
import torch.nn.functional as F
from torch import Tensor

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shape, Shapes, Tensors, describe

aten = torch.ops.aten


class Interp(Layer):
    """y = x (N x C x H x W), resized bilinearly so that the corners' centres coincide.

    `pad_beg` and `pad_end`, 0 or below, cut off as many rows and columns first. The size of what is left, h, becomes
    (h - 1) / `shrink_factor` + 1, then h + (h - 1) (`zoom_factor` - 1), rounded down; or `height` and `width`; or that
    of a second bottom.
    """

    type = "Interp"
    bottoms = (1, 2)
    no_gradient_to = held_fixed = frozenset({1})
    in_place = False
    capturable = True
    kept = Kept()

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.interp_param
        given = [param.HasField(name) for name in ("zoom_factor", "shrink_factor", "height", "width")]
        if given[2] != given[3]:
            raise self.error("height and width are given together")
        if param.use_blob_size and len(bottoms) == 1:
            raise self.error("use_blob_size needs a second bottom")
        ways = any(given[:2]) + given[2] + (len(bottoms) == 2)
        if ways != 1:
            raise self.error("takes its size from factors, from height and width, or from a second bottom: one of them")
        if param.zoom_factor < 1 or param.shrink_factor < 1:
            raise self.error("zoom_factor and shrink_factor must be at least 1")
        if param.pad_beg > 0 or param.pad_end > 0:
            raise self.error("pad_beg and pad_end cut off: they must not be above 0")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The geometry is the bottom's shape, the rows and columns that are left, and the top's size."""
        param, shape = self.param.interp_param, bottoms[0]
        if len(shape) != 4 or any(len(other) != 4 for other in bottoms):
            raise self.error(f"needs bottoms of 4 axes, found {' and '.join(map(describe, bottoms))}")
        left = tuple(slice(-param.pad_beg, size + param.pad_end) for size in shape[2:])
        sizes = [part.stop - part.start for part in left]
        if len(bottoms) == 2:
            size = bottoms[1][2:]
        elif param.HasField("height"):
            size = (param.height, param.width)
        else:
            shrunk = [(h - 1) // param.shrink_factor + 1 for h in sizes]
            size = tuple(h + (h - 1) * (param.zoom_factor - 1) for h in shrunk)
        if min(sizes) < 1 or min(size) < 1:
            raise self.error(f"makes {describe(size)} of {describe(sizes)}")
        self.geometry = shape, left, tuple(size)
        return [(*shape[:2], *size)]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = the resized part."""
        _, (rows, columns), size = self.geometry
        x = bottoms[0][:, :, rows, columns]
        if not x.numel():
            return [x.new_zeros((*x.shape[:2], *size))]
        return [F.interpolate(x, size, mode="bilinear", align_corners=True)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy by the transposed weights, 0 where x was cut off."""
        shape, (rows, columns), size = self.geometry
        dx = top_diffs[0].new_zeros(shape)
        part = dx[:, :, rows, columns]
        if part.numel():
            dy = top_diffs[0].contiguous()
            if dy.is_cuda:  # where PyTorch's kernel adds in another order each time
                part += by_matrices(dy, part.shape)
            else:
                part += aten.upsample_bilinear2d_backward(dy, size, part.shape, True, None, None)
        return [dx, *[None] * (len(needs) - 1)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Slice, Resize."""
        _, left, size = self.geometry
        x = bottoms[0]
        if self.param.interp_param.pad_beg or self.param.interp_param.pad_end:
            bounds = [part.start for part in left], [part.stop for part in left], [2, 3]
            x = graph.add("Slice", [x, *(graph.constant(f"{self.name}/bounds", bound) for bound in bounds)])
        sizes = graph.add("Concat", [graph.sizes(x, 0, 2), graph.constant(f"{self.name}/size", list(size))], axis=0)
        settings = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
        graph.node("Resize", [x, "", "", sizes], tops, **settings)


def by_matrices(dy: Tensor, shape: Shape) -> Tensor:
    """Return dy (N x C x h x w) by the transposed weights of the resizing of `shape`, as products of two matrices."""
    dtype = torch.promote_types(dy.dtype, torch.float32)
    rows, columns = (  # each input's weight in each output
        F.interpolate(torch.eye(n, dtype=dtype, device=dy.device)[None], size, mode="linear", align_corners=True)
        for n, size in zip(shape[2:], dy.shape[2:], strict=True)
    )
    return (rows @ dy.to(dtype) @ columns.mT).to(dy.dtype)
