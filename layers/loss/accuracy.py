"""Accuracy: how many labels are among the top k scores."""

import torch
from torch import Tensor

from imae.layers.layer import Kept, Layer, Saved, Shapes, Tensors
from imae.layers.loss.labels import Labels, counted, mean
from imae.prototxt_like.schema import LossParameter


class Accuracy(Layer):
    """The fraction of labels whose score is beaten or tied by fewer than `top_k` others.

    Bottoms: scores (N x C x ...), C along `axis`; labels (N x ...). Tops: a scalar; by option the accuracy of each
    class (C), 0 for a class without a label. `ignore_label` is left out of both. 0 where nothing is left. A NaN
    counts as above the label's score, and so does every other where the label's is NaN; in Caffe neither does, so that
    a net whose scores are all NaN has an accuracy of 1.

    Outside of training a layer with two tops also adds up its hits and counts of each class from pass to pass, from
    which `of_each_class` is the accuracy over all images: the mean of top 1 over batches is another where a class is
    missing in some, or not as frequent in all.
    """

    type = "Accuracy"
    bottoms = (2, 2)
    tops = (1, 2)
    no_gradient_to = frozenset({0, 1})
    index_bottoms = frozenset({1})
    capturable = True
    kept = Kept()

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.accuracy_param
        self.top_k = param.top_k
        ignored = LossParameter(ignore_label=param.ignore_label) if param.HasField("ignore_label") else LossParameter()
        self.labels = Labels(self, ignored)
        self.of_classes = len(self.param.top) == 2
        if self.of_classes and not self.training:
            classes = bottoms[0][self.axis(param.axis, bottoms[0])]
            self.state = [torch.zeros(2, classes, dtype=torch.float64, device=self.context.device)]

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Top 0 is a scalar, top 1 one number a class; the geometry is the axis of the classes, and their number."""
        axis = self.axis(self.param.accuracy_param.axis, bottoms[0])
        self.labels.reshape(bottoms, axis)
        classes = bottoms[0][axis]
        self.geometry = axis, classes
        if self.top_k > classes:
            raise self.error(f"top_k must be at most the number of classes, {classes}, not {self.top_k}")
        return [(), (classes,)][: len(self.param.top)]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Count the labels whose score has fewer than top_k others at or above it."""
        scores, (axis, classes) = bottoms[0], self.geometry
        score, label, valid = self.labels.gathered(scores, bottoms[1])
        below = torch.lt(scores, score, out=torch.empty_like(scores))  # as floats, which is vectorised
        below = below.sum(axis, keepdim=True, dtype=torch.float32)
        correct = below.ge_(classes - self.top_k)
        accuracy = mean(correct, valid, self.labels.normaliser(valid))
        if not self.of_classes:
            return [accuracy]
        hits, counts = totals = torch.stack(
            [
                torch.zeros(classes, device=scores.device).index_add_(0, label.flatten(), mask.flatten().float())
                for mask in (counted(correct, valid), torch.ones_like(correct) if valid is None else valid)
            ]
        )
        if self.state:
            if self.state[0].shape != totals.shape:
                self.state = [torch.zeros_like(totals, dtype=torch.float64)]
            self.state[0].add_(totals)
        return [accuracy, hits / counts.clamp_min(1)]

    def of_each_class(self) -> Tensor:
        """Return the accuracy of each class (C, float64) over all passes since `reset`; NaN for one without a label."""
        hits, counts = self.state[0].unbind()
        return hits / counts
