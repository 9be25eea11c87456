"""Silence: a reader that does nothing, so that a blob is no output of the net."""

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors


class Silence(Layer):
    """Takes any number of bottoms, and makes nothing of them."""

    type = "Silence"
    bottoms = (1, None)
    tops = (0, 0)
    capturable = True
    kept = Kept()

    def reshape(self, bottoms: Shapes) -> Shapes:
        return []

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return []

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = 0, for which None stands: nothing is added to what other readers give."""
        return [None] * len(needs)

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """No node."""
