"""ShuffleChannel, of ShuffleNet's Caffe: channels dealt out among groups."""

from torch import Tensor

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe


class ShuffleChannel(Layer):
    """y[:, j `group` + i] = x[:, i C / `group` + j]: one channel of each group after the other (Zhang et al. 2018)."""

    type = "ShuffleChannel"
    capturable = True
    kept = Kept()
    moves = True

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The geometry is the number of groups and of channels in one."""
        group, shape = self.param.shuffle_channel_param.group, bottoms[0]
        if len(shape) < 2 or not group or shape[1] % group:
            raise self.error(f"group {group} must divide the channels of a bottom of {describe(shape)}")
        self.geometry = group, shape[1] // group
        return bottoms

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = the channels, group x C / group, transposed."""
        return [self._dealt(bottoms[0], self.geometry)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy transposed back."""
        return [self._dealt(top_diffs[0], self.geometry[::-1])]

    def _dealt(self, x: Tensor, parts: tuple[int, int]) -> Tensor:
        return x.reshape(x.shape[0], *parts, *x.shape[2:]).transpose(1, 2).reshape(x.shape)

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Reshape, Transpose, Reshape."""
        group, each = self.geometry
        parts = graph.reshape(bottoms[0], [0, group, each, -1])
        dealt = graph.add("Transpose", [parts], perm=[0, 2, 1, 3])
        as_before = graph.add("Shape", [bottoms[0]])
        graph.reshape(dealt, as_before, tops[0])
