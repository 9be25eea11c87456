"""Labels as the losses and Accuracy take them, and what the sum over samples is divided by."""

import math

from torch import Tensor

from imae.layers.indices import IndexCheck
from imae.layers.layer import Layer, Shapes, describe
from imae.prototxt_like.schema import LossParameter


class Normaliser:
    """A `loss_param`: which label is ignored, if one is, and by `normalization` what the sum is divided by.

    Where neither `normalization` nor the older `normalize` is given, the mode is `otherwise`.
    """

    def __init__(self, param: LossParameter, otherwise: str = "VALID") -> None:
        self.ignore_label: int | None = param.ignore_label if param.HasField("ignore_label") else None
        self._fixed: float = param.pre_fixed_normalizer
        self.mode = otherwise
        if param.HasField("normalization"):
            self.mode = param.NormalizationMode.Name(param.normalization)
        elif param.HasField("normalize"):
            self.mode = "VALID" if param.normalize else "BATCH_SIZE"

    def __call__(self, valid: Tensor, batch: int) -> Tensor | float:
        """Return the number of samples that count, as `valid` says where a label is ignored (VALID), of all (FULL), of
        the batch (BATCH_SIZE), `pre_fixed_normalizer` (PRE_FIXED), or 1 (NONE); at least 1.
        """
        if self.mode == "VALID" and self.ignore_label is not None:
            return valid.sum().clamp_min(1)
        return self.of_all(valid.numel(), batch)

    def of_all(self, count: int, batch: int) -> float:
        """Return the same where all of `count` samples count."""
        return float(max(1, {"NONE": 1, "PRE_FIXED": self._fixed, "BATCH_SIZE": batch}.get(self.mode, count)))


class Labels:
    """The labels of predictions (N x C x ...) with their classes along an axis: one label a prediction, in 0 to C - 1.

    A `loss_param` says which of them is ignored.
    """

    def __init__(self, layer: Layer, param: LossParameter) -> None:
        self.layer, self._normaliser = layer, Normaliser(param)
        self.ignore_label = self._normaliser.ignore_label
        self._check = IndexCheck(layer, "label", "classes")

    def reshape(self, bottoms: Shapes, axis: int) -> None:
        """Check that the labels `bottoms[1]` fit predictions `bottoms[0]` with their classes along `axis`."""
        scores, labels = bottoms[:2]
        self.axis, self.classes = axis, scores[axis]
        expected = scores[:axis] + scores[axis + 1 :]
        self._shape, self._batch = (*scores[:axis], 1, *scores[axis + 1 :]), math.prod(scores[:axis])
        self._as_expected = labels == expected
        self._of_all = self._normaliser.of_all(math.prod(labels), self._batch)
        if math.prod(labels) != math.prod(expected):
            raise self.layer.error(
                f"predictions of {describe(scores)} with classes along axis {axis} need labels of "
                f"{describe(expected)}, found {describe(labels)}"
            )

    def indices(self, label: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the labels as indices along the classes' axis, and which of them count (both of size 1 there).

        None stands for all. An ignored label becomes class 0. Raises InputError for a label that is no class; on a GPU,
        and in a pass that is captured, such a label is noted, and the nearest class is taken.
        """
        index, valid = self._unchecked(label)
        return self._check.checked(index, self.classes), valid

    def gathered(self, values: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the predictions' `values` at their labels, and what `indices` gives."""
        index, valid = self._unchecked(label)
        return *self._check.gathered(values, self.axis, index), valid

    def _unchecked(self, label: Tensor) -> tuple[Tensor, Tensor | None]:
        index = label.long()
        index = index.unsqueeze(self.axis) if self._as_expected else index.reshape(self._shape)
        if self.ignore_label is None:
            return index, None
        valid = index != self.ignore_label
        return index * valid, valid

    def normaliser(self, valid: Tensor | None) -> Tensor | float:
        """Return what the sum over samples is divided by, at least 1, for those that count by `indices`."""
        return self._of_all if valid is None else self._normaliser(valid, self._batch)


def counted(values: Tensor, valid: Tensor | None) -> Tensor:
    """Return the values of samples, 0 for those that do not count."""
    return values if valid is None else values * valid


def mean(values: Tensor, valid: Tensor | None, normaliser: Tensor | float) -> Tensor:
    """Return the sum of the values of samples that count, over `normaliser`."""
    if valid is None and normaliser == values.numel():
        return values.mean()
    return counted(values, valid).sum() / normaliser
