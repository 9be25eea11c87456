"""What a loss divides the sum over its samples by."""

from torch import Tensor

from imae.prototxt_like.schema import LossParameter


class Normaliser:
    """A `loss_param`: which label is ignored, if one is, and by `normalization` what the sum is divided by.

    Where neither `normalization` nor the older `normalize` is given, the mode is `otherwise`.
    """

    def __init__(self, param: LossParameter, otherwise: str = "VALID") -> None:
        self.ignore_label: int | None = param.ignore_label if param.HasField("ignore_label") else None
        self.mode = otherwise
        if param.HasField("normalization"):
            self.mode = param.NormalizationMode.Name(param.normalization)
        elif param.HasField("normalize"):
            self.mode = "VALID" if param.normalize else "BATCH_SIZE"

    def __call__(self, valid: Tensor, batch: int) -> Tensor | float:
        """Return the number of samples that count, as `valid` says where a label is ignored (VALID), of all (FULL), of
        the batch (BATCH_SIZE), or 1 (NONE); at least 1.
        """
        if self.mode == "VALID" and self.ignore_label is not None:
            return valid.sum().clamp_min(1)
        if self.mode == "NONE":
            return 1
        return max(1, batch if self.mode == "BATCH_SIZE" else valid.numel())
