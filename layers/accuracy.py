"""Accuracy: how many labels are among the top k scores."""

import torch
from torch import Tensor

from imae.layers.layer import Layer, Saved, Shapes, register
from imae.layers.loss.labels import Labels


@register
class Accuracy(Layer):
    """The fraction of labels whose score is beaten or tied by fewer than `top_k` others.

    Bottoms: scores (N x C x ...), C along `axis`; labels (N x ...). Tops: a scalar; by option the accuracy of each
    class (C), 0 for a class without a label. `ignore_label` is left out of both. 0 where nothing is left. A NaN
    counts as above the label's score, and so does every other where the label's is NaN; in Caffe neither does, so that
    a net whose scores are all NaN has an accuracy of 1.
    """

    type = "Accuracy"
    bottoms = (2, 2)
    tops = (1, 2)
    no_gradient_to = frozenset({0, 1})
    index_bottoms = frozenset({1})
    capturable = True

    def setup(self, bottoms: Shapes) -> Shapes:
        """Top 0 is a scalar, top 1 one number a class."""
        param = self.param.accuracy_param
        self.along = self.axis(param.axis, bottoms[0])
        self.top_k = param.top_k
        ignore_label = param.ignore_label if param.HasField("ignore_label") else None
        self.labels = Labels(self, bottoms, self.along, ignore_label)
        classes = bottoms[0][self.along]
        if not 1 <= self.top_k <= classes:
            raise self.error(f"top_k must be 1 to the number of classes, {classes}, not {self.top_k}")
        return [(), (classes,)][: len(self.param.top)]

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """Count the labels whose score has fewer than top_k others at or above it."""
        scores, classes = bottoms[0], bottoms[0].shape[self.along]
        label, valid = self.labels.indices(bottoms[1], scores)
        others = (scores < scores.gather(self.along, label)).logical_not_().sum(self.along, keepdim=True) - 1
        correct = (others < self.top_k) & valid
        accuracy = correct.sum() / valid.sum().clamp_min(1)
        if len(self.param.top) == 1:
            return [accuracy]
        hits, counts = (
            torch.zeros(classes, device=scores.device).index_add_(0, label.flatten(), mask.flatten().float())
            for mask in (correct, valid)
        )
        return [accuracy, hits / counts.clamp_min(1)]

    def backward(self, top_diffs: list[Tensor], saved: Saved, needs: list[bool]) -> list[Tensor | None]:
        """Accuracy has no derivative."""
        return [None, None]
