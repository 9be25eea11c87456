"""Categorical cross entropy (CCE)."""

import math

import torch
from torch import Tensor

from imae.layers.layer import Saved, Shapes, Tensors
from imae.layers.loss.labels import counted
from imae.layers.loss.sample_loss import OnLogits, OnProbabilities, SampleLoss


class CrossEntropy(SampleLoss):
    """-log p_y (equation 2); gradient by the logits p - onehot(y) (15); weight 2 (1 - p_y) (19)."""

    def value(self, saved: Saved) -> Tensor:
        """-log p_y, p_y being bounded as in Caffe: by FLT_MIN in a net's float32, or by 1e-20."""
        p_y: Tensor = saved["p_y"]
        return p_y.clamp_min(self.smallest).log_().neg_()

    def factor(self, saved: Saved) -> float:
        return 1.0


class SoftmaxWithLoss(CrossEntropy, OnLogits):
    """Cross entropy of logits."""

    type = "SoftmaxWithLoss"

    def gradient(self, saved: Saved, scale: Tensor) -> Tensor:
        """p - onehot(y)."""
        p: Tensor = saved["p"]
        return p.scatter(self.geometry, saved["index"], -1.0, reduce="add").mul_(scale)

    def surrogate(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """-log p_y without the bound, which the gradient does not have either."""
        log_p = torch.log_softmax(bottoms[0], self.geometry)
        return [self.mean(-log_p.gather(self.geometry, saved["index"]), saved)]


class SoftmaxWithLossOHEM(SoftmaxWithLoss):
    """Cross entropy of logits, in R-FCN's form: a third top has that of each sample, without a gradient."""

    type = "SoftmaxWithLossOHEM"
    tops = (1, 3)
    no_gradient_from = frozenset({1, 2})

    def reshape(self, bottoms: Shapes) -> Shapes:
        """As SoftmaxWithLoss; the third top has the labels' shape."""
        return [*super().reshape(bottoms), bottoms[1]][: len(self.param.top)]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        tops = super().forward(bottoms, saved)
        return [*tops, counted(self.value(saved), saved["valid"]).reshape(bottoms[1].shape)][: len(self.param.top)]


class MultinomialLogisticLoss(CrossEntropy, OnProbabilities):
    """Cross entropy of probabilities; where a sample has one label alone, further axes are classes as well."""

    type = "MultinomialLogisticLoss"
    smallest = 1e-20

    def reshape(self, bottoms: Shapes) -> Shapes:
        """A scalar; the geometry is the axis of the classes, or -1 where all axes after the first are classes."""
        batch, classes = self.check_batch(bottoms), math.prod(bottoms[0][1:])
        if math.prod(bottoms[1]) != batch or math.prod(bottoms[0][2:]) == 1:
            return super().reshape(bottoms)
        self.geometry = -1
        self.labels.reshape([(batch, classes), bottoms[1]], 1)
        return [()]

    def probabilities(self, bottom: Tensor) -> Tensor:
        """p, its classes in one axis."""
        return bottom.flatten(1) if self.geometry == -1 else bottom
