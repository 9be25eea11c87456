"""Cross entropy of independent probabilities."""

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Saved, Shapes, Tensors
from imae.layers.loss.labels import Normaliser
from imae.layers.loss.loss_layer import Loss, at_least_float32


class SigmoidCrossEntropyLoss(Loss):
    """The sum of -t log p - (1 - t) log(1 - p), p = 1 / (1 + exp(-x)), over the batch size.

    Bottoms: x (N x ...) and targets t, as many, from 0 to 1. `loss_param` may name another divisor, and a value of
    targets, cut to an integer, that are ignored.
    """

    type = "SigmoidCrossEntropyLoss"
    no_gradient_to = frozenset({1})
    index_bottoms = frozenset({1})

    def setup(self, bottoms: Shapes) -> None:
        self.normaliser = Normaliser(self.param.loss_param, otherwise="BATCH_SIZE")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """A scalar; the geometry is the batch size."""
        self.geometry = self.check_count(bottoms)
        return [()]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """The sum of the cross entropies over the normaliser."""
        x, t = at_least_float32(bottoms[0]), at_least_float32(bottoms[1]).reshape(bottoms[0].shape)
        value = cross_entropy(x, t)
        valid = None
        if self.normaliser.ignore_label is not None:
            valid = t.long() != self.normaliser.ignore_label
            value = torch.where(valid, value, 0.0)
        normaliser = self.normaliser(t if valid is None else valid, self.geometry)
        saved.update(x=x, t=t, valid=valid, normaliser=normaliser, dtype=bottoms[0].dtype)
        return [value.sum() / normaliser]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = (p - t) dy over the normaliser; 0 if ignored."""
        dx = saved["x"].sigmoid().sub_(saved["t"])
        if saved["valid"] is not None:
            dx = torch.where(saved["valid"], dx, 0.0)
        return [dx.mul_(top_diffs[0] / saved["normaliser"]).to(saved["dtype"]), None]


class SigmoidCrossEntropyBalanceLoss(Loss):
    """As SigmoidCrossEntropyLoss, but of each sample zeros and ones count alike: those by the share of the others.

    Bottoms: x (N x ...) and targets t, as many; what is neither 0 nor 1 does not count, but in the fork's
    gradient. The sum is divided by N. Xie and Tu 2015, equation 2; of the Caffe of OSVOS.
    """

    type = "SigmoidCrossEntropyBalanceLoss"
    no_gradient_to = index_bottoms = frozenset({1})

    def reshape(self, bottoms: Shapes) -> Shapes:
        """A scalar; the geometry is the batch size."""
        self.geometry = self.check_count(bottoms)
        return [()]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """The sum of the weighted values over N."""
        x, t = at_least_float32(bottoms[0]), at_least_float32(bottoms[1]).reshape(bottoms[0].shape)
        samples = t.flatten(1) if t.dim() > 1 else t[:, None]
        ones, zeros = samples == 1, samples == 0
        count_1, count_0 = ones.sum(1, keepdim=True), zeros.sum(1, keepdim=True)
        share = (ones * count_0 + zeros * count_1) / (count_1 + count_0).clamp_min(1)
        weight = share.to(x.dtype).div_(max(1, self.geometry)).view(x.shape)
        saved.update(x=x, t=t, weight=weight, dtype=bottoms[0].dtype)
        return [(cross_entropy(x, t) * weight).sum()]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = (p - t) dy times the weights."""
        dx = saved["x"].sigmoid().sub_(saved["t"]).mul_(saved["weight"]).mul_(top_diffs[0])
        return [dx.to(saved["dtype"]), None]


def cross_entropy(x: Tensor, t: Tensor) -> Tensor:
    """Return max(x, 0) - x t + log(1 + exp(-|x|)), of which nothing overflows."""
    return x.abs().neg_().exp_().log1p_().add_(x.clamp_min(0)).addcmul_(x, t, value=-1)
