"""Normalize, of SSD's Caffe: by the L2 norm, with a learned scale."""

from torch import Tensor

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe
from imae.prototxt_like.schema import FillerParameter


class Normalize(Layer):
    """y = a x / sqrt(sum of x^2 + `eps`), the sum over the channels, and with `across_spatial` over height and width.

    Liu et al. 2015 (ParseNet). The blob a is of ones unless `scale_filler` is given: one number with `channel_shared`,
    else one a channel.
    """

    type = "Normalize"
    capturable = True
    kept = Kept(bottoms=(0,))

    def setup(self, bottoms: Shapes) -> None:
        param, (shape,) = self.param.norm_param, bottoms
        if len(shape) < 2:
            raise self.error(f"needs channels, found a bottom of {describe(shape)}")
        given = param.HasField("scale_filler")
        filler = param.scale_filler if given else FillerParameter(type="constant", value=1)
        self.add_blob(() if param.channel_shared else (shape[1],), filler)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The geometry is the axes of the sum, and the shape in which a broadcasts."""
        (shape,), a = bottoms, self.blobs[0].shape
        if len(shape) < 2 or (a and a[0] != shape[1]):
            raise self.error(f"a scale of {describe(a)} does not fit a bottom of {describe(shape)}")
        summed = tuple(range(1, len(shape))) if self.param.norm_param.across_spatial else (1,)
        self.geometry = summed, (-1, *[1] * (len(shape) - 2)) if a else ()
        return bottoms

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = a x / norm."""
        x = bottoms[0]
        return [x * (self._scale(x) / self._norm(x))]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """With u = x / norm: da = the sum of u dy, dx = (a dy - u sum of a u dy) / norm."""
        x, dy = bottoms[0], top_diffs[0]
        norm, a = self._norm(x), self.blobs[0]
        u, da = x / norm, self._scale(x) * dy
        if a.wants_diff:
            along = [axis for axis in range(x.dim()) if axis != 1]
            a.diff += (u * dy).sum(along) if a.shape else (u * dy).sum()
        return [(da - u * (u * da).sum(self.geometry[0], keepdim=True)) / norm if needs[0] else None]

    def _norm(self, x: Tensor) -> Tensor:
        return x.square().sum(self.geometry[0], keepdim=True).add_(self.param.norm_param.eps).sqrt_()

    def _scale(self, x: Tensor) -> Tensor:
        return self.blobs[0].data.to(x.dtype).view(self.geometry[1])

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Mul, ReduceSum, Add, Sqrt, Div, Mul."""
        square = graph.add("Mul", [bottoms[0], bottoms[0]])
        total = graph.reduce("ReduceSum", square, self.geometry[0], keepdims=True)
        eps = graph.constant(f"{self.name}/eps", self.param.norm_param.eps)
        norm = graph.add("Sqrt", [graph.add("Add", [total, eps])])
        scale = graph.constant(f"{self.name}_0", self.blobs[0].data.view(self.geometry[1]))
        graph.node("Mul", [graph.add("Div", [bottoms[0], norm]), scale], tops)
