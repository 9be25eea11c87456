"""PReLU: a rectifier with a learned slope below 0."""

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe
from imae.prototxt_like.schema import FillerParameter


class PReLU(Layer):
    """y = max(x, 0) + a min(x, 0) (He et al. 2015).

    The blob a has one slope a channel (axis 1), or with `channel_shared` is a scalar; 0.25 unless a filler is given.
    """

    type = "PReLU"
    capturable = True
    kept = Kept(bottoms=(0,))
    geometry: int
    """The number of the bottom's axes."""

    def setup(self, bottoms: Shapes) -> None:
        param, shape = self.param.prelu_param, bottoms[0]
        if len(shape) < 2:
            raise self.error(f"needs a bottom of 2 axes or more, found {describe(shape)}")
        given = param.HasField("filler")
        filler = param.filler if given else FillerParameter(type="constant", value=0.25)
        self.add_blob(() if param.channel_shared else (shape[1],), filler)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Shape as the bottom's; there are as many channels as there were."""
        shape, slopes = bottoms[0], self.blobs[0].shape
        if len(shape) < 2 or slopes not in ((), (shape[1],)):
            raise self.error(f"its {describe(slopes)} slopes do not fit the channels of a bottom of {describe(shape)}")
        self.geometry = len(shape)
        return bottoms

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return [torch.prelu(bottoms[0], self._slopes(bottoms[0]).flatten())]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy where x > 0, a dy elsewhere; da = sum of x dy where x <= 0, over all else than a's channels."""
        dy, x = top_diffs[0], bottoms[0]
        dx, da = torch.ops.aten._prelu_kernel_backward(dy, x, self._slopes(x))
        blob = self.blobs[0]
        if blob.wants_diff:
            over = [i for i in range(x.dim()) if i != 1 or not blob.shape]
            blob.diff += da.sum(over, dtype=blob.diff.dtype)
        return [dx if needs[0] else None]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        slopes = self.blobs[0].data
        spread = (*slopes.shape, *[1] * (self.geometry - 2)) if slopes.shape else ()
        graph.node("PRelu", [bottoms[0], graph.constant(f"{self.name}_0", slopes.view(spread))], tops)

    def _slopes(self, x: Tensor) -> Tensor:
        """The slopes in the shape that broadcasts against `x`."""
        return self.blobs[0].data.to(x.dtype).view(1, -1, *[1] * (x.dim() - 2))
