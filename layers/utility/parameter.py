"""Parameter: a learnable blob as a top."""

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe
from imae.prototxt_like.schema import FillerParameter


class Parameter(Layer):
    """y = the layer's one blob, of the given `shape`; zeros at first, as its message has no filler."""

    type = "Parameter"
    bottoms = (0, 0)
    capturable = True
    kept = Kept()

    def setup(self, bottoms: Shapes) -> None:
        shape = tuple(self.param.parameter_param.shape.dim)
        if min(shape, default=1) < 1:
            raise self.error(f"parameter_param gives the shape {describe(shape)}, with a size below 1")
        self.add_blob(shape, FillerParameter())

    def reshape(self, bottoms: Shapes) -> Shapes:
        return [self.blobs[0].shape]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return [self.blob_values(0)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dw = dy."""
        if self.blobs[0].wants_diff:
            self.blobs[0].diff += top_diffs[0]
        return []

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        graph.node("Identity", [graph.constant(f"{self.name}_0", self.blobs[0].data)], tops)
