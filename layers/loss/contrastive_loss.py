"""The contrastive loss of pairs."""

import math

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Saved, Shapes, Tensors, describe
from imae.layers.loss.loss_layer import Loss, at_least_float32

_EPSILON = 1e-4  # added by Caffe to the distance that the gradient is divided by


class ContrastiveLoss(Loss):
    """The mean of d^2 / 2 over similar pairs and of max(margin - d, 0)^2 / 2 over the others, d = |a - b|.

    Bottoms: a and b (N x C) and whether the pair is similar (N; anything but 0). In the `legacy_version`, that of
    Caffe before 2015, a pair that is not similar costs max(margin - d^2, 0) / 2. Hadsell, Chopra and LeCun (2006),
    equation 4. The gradient divides by d + 1e-4, as Caffe's.
    """

    type = "ContrastiveLoss"
    bottoms = (3, 3)
    no_gradient_to = held_fixed = frozenset({2})
    index_bottoms = frozenset({2})

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.contrastive_loss_param
        self.margin, self.legacy = param.margin, param.legacy_version

    def reshape(self, bottoms: Shapes) -> Shapes:
        """A scalar; the geometry is N and C."""
        self.geometry = n, c = self.check_batch(bottoms), math.prod(bottoms[0][1:2])
        a, b, similar = bottoms
        if math.prod(a) != n * c or math.prod(b) != n * c or math.prod(b[1:2]) != c:
            raise self.error(f"needs two bottoms of N x C, found {describe(a)} and {describe(b)}")
        if math.prod(similar[:1]) != n or math.prod(similar[1:]) != 1:
            raise self.error(f"{n} pairs need as many labels, found {describe(similar)}")
        return [()]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """The sum of what each pair costs, over 2 N."""
        a, b = (at_least_float32(x).reshape(self.geometry) for x in bottoms[:2])
        difference, similar = a - b, bottoms[2].reshape(-1, 1).long() != 0
        square = difference.square().sum(1, keepdim=True)
        saved.update(difference=difference, square=square, similar=similar)
        saved["like"] = [(x.shape, x.dtype) for x in bottoms[:2]]
        apart = (self.margin - square if self.legacy else self.margin - square.sqrt()).clamp_min(0)
        return [self._mean(square.where(similar, apart if self.legacy else apart.square()))]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """da = (a - b) dy / N of a similar pair, -(margin - d) / (d + 1e-4) times that of another nearer than the
        margin, in the legacy version -1 times; db = -da.
        """
        square = saved["square"]
        if self.legacy:
            factor = -(square < self.margin).to(square.dtype)
        else:
            distance = square.sqrt()
            factor = -(self.margin - distance).clamp_min(0) / (distance + _EPSILON)
        scale = torch.where(saved["similar"], 1.0, factor) * (top_diffs[0] / max(1, self.geometry[0]))
        return [
            *(
                (saved["difference"] * factor).reshape(shape).to(dtype) if need else None
                for factor, (shape, dtype), need in zip((scale, -scale), saved["like"], needs, strict=False)
            ),
            None,
        ]

    def surrogate(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """The loss, but of the pairs that are not similar the integral of (margin - d) d / (d + 1e-4) up to margin."""
        if self.legacy:
            return self.forward(bottoms, {})
        a, b = (x.reshape(self.geometry) for x in bottoms[:2])
        square = (a - b).square().sum(1, keepdim=True)

        def integral(d: Tensor) -> Tensor:
            scale: float = self.margin + _EPSILON
            return scale * d - d.square() / 2 - _EPSILON * scale * (d + _EPSILON).log()

        distance = square.sqrt().clamp_max(self.margin)
        apart = integral(torch.full_like(distance, self.margin)) - integral(distance)
        return [self._mean(square.where(saved["similar"], 2 * apart))]

    def _mean(self, costs: Tensor) -> Tensor:
        mean: Tensor = costs.sum() / (2 * max(1, self.geometry[0]))
        return mean
