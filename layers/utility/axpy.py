"""Axpy, of SENet's Caffe: a blob scaled channel by channel, plus another."""

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe


class Axpy(Layer):
    """F = a x + y, for a of N x C (axes of 1 behind it make no difference), x and y of N x C x ... (Hu et al. 2018)."""

    type = "Axpy"
    bottoms = (3, 3)
    capturable = True
    kept = Kept(bottoms=(0, 1))

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The geometry is the shape in which a broadcasts."""
        a, x, y = bottoms
        if x != y or a[:2] != x[:2] or len(a) < 2 or any(size != 1 for size in a[2:]):
            raise self.error(f"a of {describe(a)}, x of {describe(x)} and y of {describe(y)} do not fit")
        self.geometry = (*x[:2], *[1] * (len(x) - 2))
        return [x]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """F = a x + y."""
        a, x, y = bottoms
        return [(a.reshape(self.geometry) * x).add_(y)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """da = the sum of x dF over all but N and C; dx = a dF; dy = dF."""
        (a, x, *_), dF = bottoms, top_diffs[0]
        da = (x * dF).flatten(2).sum(2).view(a.shape) if needs[0] and x.dim() > 2 else (x * dF).view(a.shape)
        return [da if needs[0] else None, a.reshape(self.geometry) * dF if needs[1] else None, dF if needs[2] else None]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Mul, Add."""
        a = graph.reshape(bottoms[0], [0, 0, *self.geometry[2:]])
        graph.node("Add", [graph.add("Mul", [a, bottoms[1]]), bottoms[2]], tops)
