"""Categorical cross entropy (CCE)."""

import torch
from torch import Tensor

from imae.layers.layer import register
from imae.layers.loss.sample_loss import OnLogits, OnProbabilities, SampleLoss


class CrossEntropy(SampleLoss):
    """-log p_y (equation 2); gradient by the logits p - onehot(y) (15); weight 2 (1 - p_y) (19)."""

    def value(self, p_y: Tensor) -> Tensor:
        """-log p_y."""
        return -p_y.clamp_min(self.smallest).log()

    def factor(self, p_y: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(p_y)


@register
class SoftmaxWithLoss(CrossEntropy, OnLogits):
    """Cross entropy of logits."""

    type = "SoftmaxWithLoss"


@register
class MultinomialLogisticLoss(CrossEntropy, OnProbabilities):
    """Cross entropy of probabilities."""

    type = "MultinomialLogisticLoss"
