"""Improved mean absolute error (IMAE): the value of MAE, its gradient rescaled to the weight exp(T p_y (1 - p_y))."""

import torch
from torch import Tensor

from imae.layers.layer import Saved, Shapes, register
from imae.layers.loss.mae import MeanAbsoluteError
from imae.layers.loss.sample_loss import OnLogits, OnProbabilities


class ImprovedMeanAbsoluteError(MeanAbsoluteError):
    """2 (1 - p_y); gradient by the logits w/2 (r - onehot(y)), w = exp(T p_y (1 - p_y)) (equations 21 and 22).

    r is the softmax of z over the classes other than y. A sample whose p_y is 1 in float32, or above
    1 - `imae_param.saturation`, gives no gradient: what is rescaled is the gradient of MAE, which is exactly 0 there,
    and at a weight of 1 the logits would grow without bound.
    """

    def setup(self, bottoms: Shapes) -> Shapes:
        """Check T and the threshold."""
        param = self.param.imae_param
        self.T, self.saturation = param.T, param.saturation
        if not self.T >= 0:
            raise self.error(f"imae_param.T must not be negative, not {self.T:g}")
        if not 0 <= self.saturation < 1:
            raise self.error(f"imae_param.saturation must lie in [0, 1), not {self.saturation:g}")
        return super().setup(bottoms)

    def surrogate(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """w/2 log((1 - p_y) / p_y) with w held fixed: its slope in p_y is MAE's, -2, times w / (4 p_y (1 - p_y))."""
        p, index = self.probabilities(bottoms[0]), saved["index"]
        rest = p.scatter(self.along, index, 0.0).sum(self.along, keepdim=True)
        odds = rest.clamp_min(self.smallest) / p.gather(self.along, index).clamp_min(self.smallest)
        return [(self.weight(saved["p_y"]) / 2 * odds.log() * saved["valid"]).sum() / saved["normaliser"]]

    def weight(self, p_y: Tensor) -> Tensor:
        """w, 0 for a saturated sample."""
        saturated = (p_y.float() == 1) | (p_y > 1 - self.saturation)
        return torch.exp(self.T * p_y * (1 - p_y)).masked_fill_(saturated, 0.0)


@register
class SoftmaxWithIMAELoss(ImprovedMeanAbsoluteError, OnLogits):
    """Improved mean absolute error of logits."""

    type = "SoftmaxWithIMAELoss"

    def gradient(self, x: Tensor, p: Tensor, p_y: Tensor, index: Tensor) -> Tensor:
        """w/2 (r - onehot(y)), r from the logits with z_y masked: p may have underflowed, and 1 - p_y is no divisor."""
        r = torch.softmax(x.scatter(self.along, index, -torch.inf), self.along)
        return r.scatter_(self.along, index, -1.0).mul_(self.weight(p_y) / 2)


@register
class IMAELoss(ImprovedMeanAbsoluteError, OnProbabilities):
    """Improved mean absolute error of probabilities."""

    type = "IMAELoss"

    def gradient(self, x: Tensor, p: Tensor, p_y: Tensor, index: Tensor) -> Tensor:
        """-w/2 / p_y at y, w/2 / (sum of the others) elsewhere: Softmax makes w/2 (r - onehot(y)) of it."""
        half = self.weight(p_y) / 2
        rest = p.scatter(self.along, index, 0.0).sum(self.along, keepdim=True)
        others = half / rest.clamp_min(self.smallest)
        return others.expand_as(p).scatter(self.along, index, -half / p_y.clamp_min(self.smallest))
