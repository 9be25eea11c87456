"""Mean absolute error (MAE)."""

from torch import Tensor

from imae.layers.layer import Saved
from imae.layers.loss.sample_loss import OnLogits, OnProbabilities, SampleLoss


class MeanAbsoluteError(SampleLoss):
    """2 (1 - p_y) (equation 3); gradient by the logits 2 p_y (p - onehot(y)) (18); weight 4 p_y (1 - p_y) (20)."""

    def value(self, saved: Saved) -> Tensor:
        p_y: Tensor = saved["p_y"]
        return 2 * (1 - p_y)

    def factor(self, saved: Saved) -> Tensor:
        p_y: Tensor = saved["p_y"]
        return 2 * p_y


class SoftmaxWithMAELoss(MeanAbsoluteError, OnLogits):
    """Mean absolute error of logits."""

    type = "SoftmaxWithMAELoss"


class MAELoss(MeanAbsoluteError, OnProbabilities):
    """Mean absolute error of probabilities; `imae.MAELoss`, for PyTorch, takes logits."""

    type = "MAELoss"
