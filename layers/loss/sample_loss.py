"""What the losses share: the mean over samples of a value of p_y, from logits or from probabilities."""

from typing import ClassVar

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Saved, Shapes, Tensors
from imae.layers.loss.labels import Labels, counted, mean
from imae.layers.loss.loss_layer import Loss, at_least_float32


class SampleLoss(Loss):
    """The mean over samples of a value of p_y, the probability of the annotated label.

    Bottoms: logits or probabilities (N x C x ...), classes along `softmax_param.axis`; labels (N x ...). Top: a scalar.
    `loss_param` sets `ignore_label` and what the sum is divided by. Computed in float32, or in float64 where the bottom
    is. A subclass gives `value` and `factor`; the gradient by the logits is factor (p - onehot(y)).

    `saved` holds x (bottom 0), p (N x C x ...), and of each sample p_y, index (y), valid (whether it counts), each of
    size 1 along the classes; valid is None where all count.
    """

    no_gradient_to = frozenset({1})
    index_bottoms = frozenset({1})
    no_gradient_from = frozenset({1})
    smallest: ClassVar[float]  # the smallest p_y that is divided by or taken the logarithm of

    def setup(self, bottoms: Shapes) -> None:
        self.labels = Labels(self, self.param.loss_param)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The loss is a scalar; a second top has the first bottom's shape. The geometry is the axis of the classes."""
        self.check_batch(bottoms)
        self.geometry = self.axis(self.param.softmax_param.axis, bottoms[0])
        self.labels.reshape(bottoms, self.geometry)
        return [(), bottoms[0]][: len(self.param.top)]

    def value(self, saved: Saved) -> Tensor:
        """Return the value of each sample."""
        raise NotImplementedError

    def factor(self, saved: Saved) -> Tensor | float:
        """Return -p_y dvalue/dp_y of each sample."""
        raise NotImplementedError

    def l1_norm(self, saved: Saved) -> Tensor:
        """Return the weight of each sample: the L1 norm of its gradient by the logits."""
        p_y: Tensor = saved["p_y"]
        return 2 * self.factor(saved) * (1 - p_y)

    def probabilities(self, bottom: Tensor) -> Tensor:
        """Return p (N x C x ...)."""
        raise NotImplementedError

    def log_p_y(self, saved: Saved) -> Tensor:
        """Return log p_y of each sample."""
        raise NotImplementedError

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """The sum of the values of the samples that count, over the normaliser."""
        x = at_least_float32(bottoms[0])
        p = self.probabilities(x)
        p_y, index, valid = self.labels.gathered(p, bottoms[1])
        normaliser = self.labels.normaliser(valid)
        saved.update(x=x, p=p, p_y=p_y, index=index, valid=valid, normaliser=normaliser, dtype=bottoms[0].dtype)
        return [self.mean(self.value(saved), saved), p][: len(self.param.top)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = the gradient of each sample's value, times the loss weight over the divisor; 0 if ignored."""
        dx = self.gradient(saved, counted(top_diffs[0] / self.divisor(saved), saved["valid"]))
        return [dx.reshape(saved["x"].shape).to(saved["dtype"]), None]

    def mean(self, values: Tensor, saved: Saved) -> Tensor:
        """Return the sum of the samples that count, over the normaliser."""
        return mean(values, saved["valid"], saved["normaliser"])

    def gradient(self, saved: Saved, scale: Tensor) -> Tensor:
        """Return the gradient of each sample's value by x, times `scale` (a scalar, or a number a sample)."""
        raise NotImplementedError

    def divisor(self, saved: Saved) -> Tensor | float:
        """Return what the sum of the samples' gradients is divided by."""
        normaliser: Tensor | float = saved["normaliser"]
        return normaliser


class OnLogits(SampleLoss):
    """A loss fused with its softmax: bottom 0 is z, p = softmax(z), which is the second top where one is asked for."""

    tops = (1, 2)
    smallest = torch.finfo(torch.float32).tiny

    def probabilities(self, bottom: Tensor) -> Tensor:
        return torch.softmax(bottom, self.geometry)

    def log_p_y(self, saved: Saved) -> Tensor:
        """z_y - max z + log max p: finite where p_y underflows."""
        x, axis = saved["x"], self.geometry
        if "log_p_y" not in saved:
            log_largest = saved["p"].amax(axis, keepdim=True).log()
            saved["log_p_y"] = x.gather(axis, saved["index"]) - x.amax(axis, keepdim=True) + log_largest
        log_p_y: Tensor = saved["log_p_y"]
        return log_p_y

    def gradient(self, saved: Saved, scale: Tensor) -> Tensor:
        p: Tensor = saved["p"]
        dx = p.scatter(self.geometry, saved["index"], -1.0, reduce="add")
        return dx.mul_(self.factor(saved) * scale)


class OnProbabilities(SampleLoss):
    """A loss as in the paper's Figure 2: bottom 0 is p, from a Softmax layer whose backward completes the chain."""

    smallest = torch.finfo(torch.float32).tiny

    def probabilities(self, bottom: Tensor) -> Tensor:
        return bottom

    def log_p_y(self, saved: Saved) -> Tensor:
        p_y: Tensor = saved["p_y"]
        return p_y.log()

    def gradient(self, saved: Saved, scale: Tensor) -> Tensor:
        """-factor / p_y at the annotated label, 0 elsewhere."""
        return torch.zeros_like(saved["p"]).scatter_(self.geometry, saved["index"], -self._slope(saved) * scale)

    def surrogate(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """The loss, but linear in p_y where the gradient's p_y is bounded, with the slope that the gradient has."""
        p_y = self.probabilities(bottoms[0]).gather(self.geometry, saved["index"])
        linear = -self._slope(saved) * p_y
        bounded = saved["p_y"] < self.smallest
        return [self.mean(linear.where(bounded, self.value({**saved, "p_y": p_y})), saved)]

    def _slope(self, saved: Saved) -> Tensor:
        """factor / p_y, for a p_y of at least `smallest`."""
        p_y: Tensor = saved["p_y"].clamp_min(self.smallest)
        return self.factor({**saved, "p_y": p_y}) / p_y
