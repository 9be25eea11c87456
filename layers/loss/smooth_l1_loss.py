"""SmoothL1Loss, of Fast R-CNN's Caffe, and R-FCN's form of it that gives the loss of each position, too."""

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Saved, Shapes, Tensors, describe, with_four_axes
from imae.layers.loss.labels import Normaliser
from imae.layers.loss.loss_layer import Loss, at_least_float32
from imae.prototxt_like.schema import LossParameter


class SmoothL1Loss(Loss):
    """The sum of v s(w (a - b)) over N, s(d) = (sigma d)^2 / 2 where |d| < 1 / sigma^2, else |d| - 1 / (2 sigma^2).

    Bottoms: a and b (N x ...), which have a gradient, and the inside and outside weights w and v, as many, or none: 1.
    With `normalization: NONE` the sum is divided by nothing. Girshick 2015, equation 3; `sigma` is of Ren et al. 2015.
    """

    type = "SmoothL1Loss"
    bottoms = (2, 4)

    def setup(self, bottoms: Shapes) -> None:
        if len(bottoms) == 3:
            raise self.error("takes inside and outside weights together, the prototxt gives 3 bottoms")
        self.no_gradient_to = self.held_fixed = frozenset(range(2, len(bottoms)))
        self.square = self.param.smooth_l1_loss_param.sigma**2
        if not 1e-12 < self.square < 1e12:
            raise self.error(f"sigma is {self.param.smooth_l1_loss_param.sigma:g}, expected from 1e-6 to 1e6")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """A scalar; the geometry is the shape of a, with four axes at least."""
        self.check_count(bottoms)
        self.geometry, *others = map(with_four_axes, bottoms)
        for shape, other in zip(bottoms[1:], others, strict=True):
            if other != self.geometry:
                raise self.error(f"needs bottoms of one shape, found {describe(bottoms[0])} and {describe(shape)}")
        return [()]

    def normaliser(self) -> float:
        """Return what the sum is divided by."""
        return 1.0 if self.param.loss_param.normalization == LossParameter.NONE else float(max(1, self.geometry[0]))

    def values(self, bottoms: Tensors, saved: Saved) -> Tensor:
        """Return v t (d - t / 2) in the shape of a, t = d cut to 1 / sigma^2: the losses over sigma^2."""
        a, b, *weights = (at_least_float32(x).reshape(bottoms[0].shape) for x in bottoms)
        d = a - b
        if weights:
            d *= weights[0]
        t = d.clamp(-1 / self.square, 1 / self.square)
        saved.update(t=t, weights=weights, like=[(x.shape, x.dtype) for x in bottoms])
        value = d.sub_(t, alpha=0.5).mul_(t)
        return value if len(weights) < 2 else value.mul_(weights[1])

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return [self.values(bottoms, saved).sum() * (self.square / self.normaliser())]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """da = w v sigma^2 t dy over the normaliser; db = -da."""
        da = saved["t"] * (top_diffs[0] * (self.square / self.normaliser()))
        for weight in saved["weights"]:
            da *= weight
        return [
            (da if i == 0 else -da).reshape(shape).to(dtype) if need else None
            for i, ((shape, dtype), need) in enumerate(zip(saved["like"], needs, strict=True))
        ]


class SmoothL1LossOHEM(SmoothL1Loss):
    """The sum of s(w (a - b)), s(d) = d^2 / 2 where |d| < 1, else |d| - 1/2; as a second top that of each position.

    Bottoms: a and b (N x C x ...), which have a gradient, and weights w, as many, or none: 1. The second top
    (N x 1 x ...) has no gradient: by it BoxAnnotatorOHEM chooses. `normalization` divides by the number of positions
    (FULL, VALID), by N (BATCH_SIZE), by `pre_fixed_normalizer` (PRE_FIXED), or by nothing (NONE). Dai et al. 2016. With
    weights other than 0 and 1 the fork's gradient lacks a factor w.
    """

    type = "SmoothL1LossOHEM"
    bottoms = (2, 3)
    tops = (1, 2)
    no_gradient_from = frozenset({1})

    def setup(self, bottoms: Shapes) -> None:
        self.no_gradient_to = self.held_fixed = frozenset(range(2, len(bottoms)))
        self.square = 1.0
        self._normaliser = Normaliser(self.param.loss_param)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """A scalar, and N x 1 x H x W."""
        super().reshape(bottoms)
        batch, _, *positions = self.geometry
        tops: Shapes = [(), (batch, 1, *positions)]
        return tops[: len(self.param.top)]

    def normaliser(self) -> float:
        batch, _, *positions = self.geometry
        return self._normaliser.of_all(batch * torch.Size(positions).numel(), batch)

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        values = self.values(bottoms, saved).view(self.geometry)
        return [values.sum() / self.normaliser(), values.sum(1, keepdim=True)][: len(self.param.top)]
