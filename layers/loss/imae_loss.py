"""Improved mean absolute error (IMAE): the value of MAE, its gradient rescaled to the weight exp(T p_y (1 - p_y))."""

import torch
from torch import Tensor

from imae.layers.layer import Saved, Shapes, Tensors
from imae.layers.loss.labels import counted
from imae.layers.loss.mae_loss import MeanAbsoluteError
from imae.layers.loss.sample_loss import OnLogits, OnProbabilities

SMALL = 1e-12  # an epsilon from which on d / (d + epsilon/2) is nothing before probabilities underflow


class ImprovedMeanAbsoluteError(MeanAbsoluteError):
    """2 (1 - p_y); gradient by the logits w/2 (r - onehot(y)) d / (d + epsilon/2), w = exp(T p_y (1 - p_y)).

    Equations 21 and 22. r is the softmax of z over the classes other than y, d = 1 - p_y the sum of their
    probabilities. The last factor is the authors' code's, which divides MAE's gradient by 2 (1 - p_y) + epsilon: a
    sample that is fitted is let go, softly, where the equations' weight of 1 would let the logits grow without bound.

    `imae_param`: T, 8 as the paper's for noisy labels; `epsilon`, 1e-6 as theirs, 0 for the equations as they stand;
    `normalize_by: WEIGHTS` divides the gradient, again as their code, by the sum of the weights w of the batch's
    samples that count (in several processes, of all of them) in place of `loss_param`'s normaliser, which stays the
    value's.
    """

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.imae_param
        self.T, self.epsilon = param.T, param.epsilon
        self.by_weights = param.normalize_by == param.WEIGHTS
        for name, value in (("T", self.T), ("epsilon", self.epsilon)):
            if not value >= 0:
                raise self.error(f"imae_param.{name} must not be negative, not {value:g}")
        super().setup(bottoms)

    def weight(self, p_y: Tensor) -> Tensor:
        return torch.exp(self.T * p_y * (1 - p_y))

    def halves(self, saved: Saved) -> tuple[Tensor, Tensor]:
        """Return w/2 d / (d + epsilon/2), half the L1 norm of a sample's gradient, and w/2 / (d + epsilon/2)."""
        d = saved["p"].scatter(self.geometry, saved["index"], 0.0).sum(self.geometry, keepdim=True)
        half = self.weight(saved["p_y"]) / 2
        over = half / (d + self.epsilon / 2).clamp_min(torch.finfo(torch.float32).tiny)
        return (over * d if self.epsilon else half), over

    def l1_norm(self, saved: Saved) -> Tensor:
        """w d / (d + epsilon/2)."""
        return 2 * self.halves(saved)[0]

    def divisor(self, saved: Saved) -> Tensor | float:
        """The normaliser, or the sum of the weights, which are at least 1."""
        if not self.by_weights:
            return super().divisor(saved)
        total = counted(self.weight(saved["p_y"]), saved["valid"]).sum()
        return self.context.mean_over_processes(total).clamp_min(1)


class SoftmaxWithIMAELoss(ImprovedMeanAbsoluteError, OnLogits):
    """Improved mean absolute error of logits."""

    type = "SoftmaxWithIMAELoss"

    def gradient(self, saved: Saved, scale: Tensor) -> Tensor:
        """w/2 d / (d + epsilon/2) (r - onehot(y)).

        r = p / d; without epsilon, where that is needed even if p has underflowed, from the logits with z_y masked.
        """
        axis, index, (half, over) = self.geometry, saved["index"], self.halves(saved)
        if self.epsilon > SMALL:
            dx: Tensor = saved["p"] * (over * scale)
            return dx.scatter_(axis, index, -half * scale)
        r = torch.softmax(saved["x"].scatter(axis, index, -torch.inf), axis)
        return r.scatter_(axis, index, -1.0).mul_(half * scale)

    def surrogate(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """w/2 d / (d + epsilon/2) log((1 - p_y) / p_y), all but the logarithm held fixed.

        Its slope in p_y is MAE's, -2, times the weight over 4 p_y (1 - p_y).
        """
        others = bottoms[0].scatter(self.geometry, saved["index"], -torch.inf).logsumexp(self.geometry, keepdim=True)
        log_odds = others - bottoms[0].gather(self.geometry, saved["index"])
        return [self.mean(self.halves(saved)[0] * log_odds, saved) * saved["normaliser"] / self.divisor(saved)]


class IMAELoss(ImprovedMeanAbsoluteError, OnProbabilities):
    """Improved mean absolute error of probabilities; `imae.IMAELoss`, for PyTorch, takes logits."""

    type = "IMAELoss"

    def gradient(self, saved: Saved, scale: Tensor) -> Tensor:
        """-w/2 d / (d + epsilon/2) / p_y at y, w/2 / (d + epsilon/2) elsewhere, of which Softmax makes the above."""
        half, over = self.halves(saved)
        at_y = -half / saved["p_y"].clamp_min(self.smallest) * scale
        return (over * scale).expand_as(saved["p"]).scatter(self.geometry, saved["index"], at_y)

    def surrogate(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """w/2 (log(d + epsilon/2) - d / (d + epsilon/2) log p_y), all but the logarithms held fixed.

        Linear in p_y where the gradient's is bounded.
        """
        half, _ = self.halves(saved)
        p_y = bottoms[0].gather(self.geometry, saved["index"])
        d = bottoms[0].scatter(self.geometry, saved["index"], 0.0).sum(self.geometry, keepdim=True)
        at_y = half * torch.where(saved["p_y"] < self.smallest, p_y / self.smallest, p_y.log())
        others = self.weight(saved["p_y"]) / 2 * (d + self.epsilon / 2).log()
        return [self.mean(others - at_y, saved) * saved["normaliser"] / self.divisor(saved)]
