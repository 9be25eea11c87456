"""What the losses share: the mean over samples of a value of p_y, from logits or from probabilities."""

from typing import ClassVar

import torch
from torch import Tensor

from imae.layers.layer import Layer, Saved, Shapes
from imae.layers.loss.labels import Labels


class SampleLoss(Layer):
    """The mean over samples of `value`(p_y), p_y being the probability of the annotated label.

    Bottoms: logits or probabilities (N x C x ...), classes along `softmax_param.axis`; labels (N x ...). Top: a scalar.
    `loss_param` sets `ignore_label` and what the sum is divided by. Computed in float32, or in float64 where the bottom
    is. A subclass gives `value` and `factor`; the gradient by the logits is factor(p_y) (p - onehot(y)).
    """

    bottoms = (2, 2)
    is_loss = True
    no_gradient_to = frozenset({1})
    index_bottoms = frozenset({1})
    no_gradient_from = frozenset({1})
    capturable = True
    smallest: ClassVar[float]
    """The smallest p_y that is divided by or taken the logarithm of."""

    def setup(self, bottoms: Shapes) -> Shapes:
        """The loss is a scalar; a second top has the first bottom's shape."""
        self.along = self.axis(self.param.softmax_param.axis, bottoms[0])
        self.labels = Labels(self, bottoms, self.along)
        return [(), bottoms[0]][: len(self.param.top)]

    def value(self, p_y: Tensor) -> Tensor:
        """Return the value of each sample."""
        raise NotImplementedError

    def factor(self, p_y: Tensor) -> Tensor:
        """Return -p_y dvalue/dp_y of each sample."""
        raise NotImplementedError

    def probabilities(self, bottom: Tensor) -> Tensor:
        """Return p (N x C x ...)."""
        raise NotImplementedError

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """The sum of value(p_y) over the samples that count, over the normaliser."""
        x = bottoms[0] if bottoms[0].dtype == torch.float64 else bottoms[0].float()
        p = self.probabilities(x)
        index, valid = self.labels.indices(bottoms[1], p)
        p_y, normaliser = p.gather(self.along, index), self.labels.normaliser(valid)
        saved.update(x=x, p=p, p_y=p_y, index=index, valid=valid, normaliser=normaliser, dtype=bottoms[0].dtype)
        return [(self.value(p_y) * valid).sum() / normaliser, p][: len(self.param.top)]

    def backward(self, top_diffs: list[Tensor], saved: Saved, needs: list[bool]) -> list[Tensor | None]:
        """dx = the gradient of each sample's value, times the loss weight over the normaliser; 0 if ignored."""
        dx = self.gradient(saved["x"], saved["p"], saved["p_y"], saved["index"])
        return [dx.mul_(saved["valid"] * (top_diffs[0] / saved["normaliser"])).to(saved["dtype"]), None]

    def gradient(self, x: Tensor, p: Tensor, p_y: Tensor, index: Tensor) -> Tensor:
        """Return, as a new tensor, the gradient of each sample's value by x; `index` is y along the classes."""
        raise NotImplementedError


class OnLogits(SampleLoss):
    """A loss fused with its softmax: bottom 0 is z, p = softmax(z), which is the second top where one is asked for."""

    tops = (1, 2)
    smallest = torch.finfo(torch.float32).tiny

    def probabilities(self, bottom: Tensor) -> Tensor:
        """p = softmax(z)."""
        return torch.softmax(bottom, self.along)

    def gradient(self, x: Tensor, p: Tensor, p_y: Tensor, index: Tensor) -> Tensor:
        """factor(p_y) (p - onehot(y))."""
        return p.scatter_add(self.along, index, torch.full_like(p_y, -1.0)).mul_(self.factor(p_y))


class OnProbabilities(SampleLoss):
    """A loss as in the paper's Figure 2: bottom 0 is p, from a Softmax layer whose backward completes the chain."""

    smallest = 1e-20

    def probabilities(self, bottom: Tensor) -> Tensor:
        """p, as it is."""
        return bottom

    def gradient(self, x: Tensor, p: Tensor, p_y: Tensor, index: Tensor) -> Tensor:
        """-factor(p_y) / p_y at the annotated label, 0 elsewhere."""
        bounded = p_y.clamp_min(self.smallest)
        return torch.zeros_like(p).scatter_(self.along, index, -self.factor(bounded) / bounded)
