"""AbsVal: the absolute value."""

from imae.layers.activation.neuron import Neuron
from imae.layers.layer import Diffs, Kept, Saved, Tensors


class AbsVal(Neuron):
    """y = |x|."""

    type = "AbsVal"
    onnx_operator = "Abs"
    kept = Kept(bottoms=(0,))  # x, for its sign

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return [bottoms[0].abs()]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = sign(x) dy, 0 at 0."""
        return [top_diffs[0] * bottoms[0].sign()]
