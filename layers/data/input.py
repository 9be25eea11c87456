"""Input: blobs that the caller feeds."""

from imae.layers.layer import Layer, Saved, Shapes, Tensors, describe
from imae.prototxt_like.errors import counted


class Input(Layer):
    """Tops of given shapes, with values from the caller of `Net.forward`."""

    type = "Input"
    bottoms = (0, 0)
    tops = (1, None)
    capturable = True

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Return the shapes in `input_param`: one for all tops, or one each; or `bottoms`, where others are fed."""
        if bottoms:
            for shape in bottoms:
                if any(size < 0 for size in shape):
                    raise self.error(f"cannot take the shape {describe(shape)}, with a size below 0")
            return bottoms
        shapes = [tuple(shape.dim) for shape in self.param.input_param.shape]
        for shape in shapes:
            if any(size < 1 for size in shape):
                raise self.error(
                    f"input_param gives the shape {describe(shape)}; expected sizes of 1 or more: a batch size too is "
                    "given as a number, and what is fed may be of another"
                )
        if len(shapes) not in (1, len(self.param.top)):
            raise self.error(
                f"input_param gives {counted(len(shapes), 'shape')} for {counted(len(self.param.top), 'top')}"
            )
        return shapes if len(shapes) == len(self.param.top) else shapes * len(self.param.top)

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Return the fed values, which the net passes as bottoms."""
        return bottoms
