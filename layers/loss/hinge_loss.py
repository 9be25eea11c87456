"""The hinge loss, one class against the rest."""

import math

import torch

from imae.layers.layer import Diffs, Saved, Shapes, Tensors
from imae.layers.loss.labels import Labels
from imae.layers.loss.loss_layer import Loss, at_least_float32
from imae.prototxt_like.schema import LossParameter


class HingeLoss(Loss):
    """The sum of h over N, or by `norm: L2` of h^2, where h = max(0, 1 + x), but max(0, 1 - x) for the labelled class.

    Bottoms: scores x (N x C; further axes are classes as well), labels (N). `loss_param` has no effect, as in Caffe.
    """

    type = "HingeLoss"
    no_gradient_to = frozenset({1})
    index_bottoms = frozenset({1})

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.hinge_loss_param
        self.squared = param.norm == param.L2
        self.labels = Labels(self, LossParameter())

    def reshape(self, bottoms: Shapes) -> Shapes:
        """A scalar; the geometry is N and C."""
        self.geometry = self.check_batch(bottoms), math.prod(bottoms[0][1:])
        self.labels.reshape([self.geometry, bottoms[1]], 1)
        return [()]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        x = at_least_float32(bottoms[0]).reshape(self.geometry)
        index, _ = self.labels.indices(bottoms[1])
        sign = torch.ones_like(x).scatter_(1, index, -1.0)
        h = (1 + sign * x).clamp_min(0)
        saved.update(h=h, sign=sign, shape=bottoms[0].shape, dtype=bottoms[0].dtype)
        return [(h.square() if self.squared else h).sum() / max(1, self.geometry[0])]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dh / N where h > 0, or 2 h / N; of the labelled class the negative."""
        h = saved["h"]
        slope = 2 * h if self.squared else h.sign()
        dx = slope * saved["sign"] * (top_diffs[0] / max(1, self.geometry[0]))
        return [dx.reshape(saved["shape"]).to(saved["dtype"]), None]
