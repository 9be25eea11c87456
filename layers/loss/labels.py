"""Labels as the losses and Accuracy take them."""

import math

import torch
from torch import Tensor

from imae.layers.layer import Layer, Shapes, describe
from imae.layers.loss.normaliser import Normaliser
from imae.prototxt_like.errors import InputError


class Labels:
    """The labels of predictions (N x C x ...) with their classes along an axis: one label a prediction, in 0 to C - 1.

    Which of them is ignored is the `normaliser`'s to say.
    """

    def __init__(self, layer: Layer, normaliser: Normaliser) -> None:
        self.layer, self._normaliser = layer, normaliser
        self.ignore_label = normaliser.ignore_label
        self._lowest, self._highest = (
            torch.zeros((), dtype=torch.int64, device=layer.context.device) for _ in range(2)
        )
        layer.context.checks.add(self.check_noted)

    def reshape(self, bottoms: Shapes, axis: int) -> None:
        """Check that the labels `bottoms[1]` fit predictions `bottoms[0]` with their classes along `axis`."""
        scores, labels = bottoms[:2]
        self.axis, self.classes = axis, scores[axis]
        expected = scores[:axis] + scores[axis + 1 :]
        if math.prod(labels) != math.prod(expected):
            raise self.layer.error(
                f"predictions of {describe(scores)} with classes along axis {axis} need labels of "
                f"{describe(expected)}, found {describe(labels)}"
            )

    def indices(self, label: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return the labels as indices along `axis` of `scores`, and which of them count (both of size 1 there).

        An ignored label becomes class 0. Raises InputError for a label that is no class; on a GPU, and in a pass that
        is captured, such a label is noted for `check_noted`, and the nearest class is taken.
        """
        shape = list(scores.shape)
        shape[self.axis] = 1
        index = label.long().reshape(shape)
        valid = torch.ones_like(index, dtype=torch.bool)
        if self.ignore_label is not None:
            valid = index != self.ignore_label
            index = index * valid
        if not index.numel():
            return index, valid
        if self.layer.context.passes.on_device is not None or index.device.type != "cpu":
            self._lowest.copy_(torch.minimum(self._lowest, index.amin()))
            self._highest.copy_(torch.maximum(self._highest, index.amax()))
            return index.clamp(0, self.classes - 1), valid
        wrong = (index < 0) | (index >= self.classes)
        if wrong.any():
            raise self._out_of_range(int(index[wrong][0]))
        return index, valid

    def check_noted(self) -> None:
        """Raise InputError if a label that is no class was noted."""
        for label in (int(self._lowest), int(self._highest)):
            if not 0 <= label < self.classes:
                raise self._out_of_range(label)

    def normaliser(self, valid: Tensor) -> Tensor | float:
        """Return what the sum over samples is divided by, at least 1; `valid` says which count."""
        return self._normaliser(valid, math.prod(valid.shape[: self.axis]))

    def _out_of_range(self, label: int) -> InputError:
        return self.layer.error(
            f"label {label} is out of range: there are {self.classes} classes, 0 to {self.classes - 1}"
        )
