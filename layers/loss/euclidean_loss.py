"""Half the mean squared distance."""

from imae.layers.layer import Diffs, Saved, Shapes, Tensors
from imae.layers.loss.loss_layer import Loss, at_least_float32


class EuclideanLoss(Loss):
    """Sum of (a - b)^2 over 2 N, of a and b (N x ..., as many values each); both have a gradient."""

    type = "EuclideanLoss"

    def reshape(self, bottoms: Shapes) -> Shapes:
        """A scalar; the geometry is N."""
        self.geometry = self.check_count(bottoms)
        return [()]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        a, b = bottoms
        difference = at_least_float32(a) - at_least_float32(b).reshape(a.shape)
        saved.update(difference=difference, like=[(x.shape, x.dtype) for x in bottoms])
        flat = difference.reshape(-1)
        return [flat.dot(flat) / (2 * max(1, self.geometry))]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """da = (a - b) dy / N, db = -da."""
        scale = top_diffs[0] / max(1, self.geometry)
        return [
            (saved["difference"] * factor).reshape(shape).to(dtype) if need else None
            for factor, (shape, dtype), need in zip((scale, -scale), saved["like"], needs, strict=True)
        ]
