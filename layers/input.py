"""Input: blobs that the caller feeds."""

from torch import Tensor

from imae.layers.layer import Layer, Saved, Shapes, register


@register
class Input(Layer):
    """Tops of given shapes, with values from the caller of `Net.forward`."""

    type = "Input"
    bottoms = (0, 0)
    tops = (1, None)
    capturable = True

    def setup(self, bottoms: Shapes) -> Shapes:
        """Return the shapes in `input_param`: one for all tops, or one each."""
        shapes = [tuple(shape.dim) for shape in self.param.input_param.shape]
        if len(shapes) not in (1, len(self.param.top)):
            raise self.error(f"input_param gives {len(shapes)} shapes for {len(self.param.top)} tops")
        return shapes if len(shapes) == len(self.param.top) else shapes * len(self.param.top)

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """Return the fed values, which the net passes as bottoms."""
        return bottoms

    def backward(self, top_diffs: list[Tensor], saved: Saved, needs: list[bool]) -> list[Tensor | None]:
        """Inputs have no bottoms to give a gradient to."""
        return []
