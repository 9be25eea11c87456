"""Generalised cross entropy (GCE), between CCE (q -> 0) and MAE (q = 1)."""

import torch
from torch import Tensor

from imae.layers.layer import Saved, Shapes, Tensors
from imae.layers.loss.labels import counted
from imae.layers.loss.sample_loss import OnLogits, OnProbabilities, SampleLoss


class GeneralisedCrossEntropy(SampleLoss):
    """(1 - p_y^q) / q; gradient by the logits p_y^q (p - onehot(y)); weight 2 p_y^q (1 - p_y).

    Zhang and Sabuncu 2018. `gce_param`: q in (0, 1], 0.7 as theirs; with k the truncated form: from forward pass
    `start_iter` on, a sample with p_y <= k has the value (1 - k^q) / q and gives no gradient.
    """

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.gce_param
        self.q, self.k, self.start_iter = param.q, param.k if param.HasField("k") else None, param.start_iter
        if not 0 < self.q <= 1:
            raise self.error(f"gce_param.q must lie in (0, 1], not {self.q:g}")
        if self.k is not None and not 0 <= self.k < 1:
            raise self.error(f"gce_param.k must lie in [0, 1), not {self.k:g}")
        super().setup(bottoms)

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """As any SampleLoss, truncated from pass `start_iter` on."""
        saved["truncates"] = (
            self.context.passes.current >= self.start_iter
        )  # kept for backward: by then the net counts one pass more
        return super().forward(bottoms, saved)

    def value(self, saved: Saved) -> Tensor:
        """(1 - p_y^q) / q, exact from log p_y where p_y underflows."""
        value = torch.expm1(self.q * self.log_p_y(saved)).div(-self.q)
        pruned = self._pruned(saved)
        return value if pruned is None else value.masked_fill(pruned, (1 - (self.k or 0.0) ** self.q) / self.q)

    def factor(self, saved: Saved) -> Tensor:
        """p_y^q, 0 for a sample that is pruned."""
        factor = torch.exp(self.q * self.log_p_y(saved))
        pruned = self._pruned(saved)
        return factor if pruned is None else factor.masked_fill(pruned, 0.0)

    def _pruned(self, saved: Saved) -> Tensor | None:
        """Which samples the truncated form prunes; None if it does not in this pass, or at k = 0, below any p_y."""
        if not self.k or saved["truncates"] is False:
            return None
        pruned: Tensor = saved["p_y"] <= self.k
        return pruned & saved["truncates"] if isinstance(saved["truncates"], Tensor) else pruned


class SoftmaxWithGCELoss(GeneralisedCrossEntropy, OnLogits):
    """Generalised cross entropy of logits."""

    type = "SoftmaxWithGCELoss"


class GCELoss(GeneralisedCrossEntropy, OnProbabilities):
    """Generalised cross entropy of probabilities; `imae.GCELoss`, for PyTorch, takes logits."""

    type = "GCELoss"

    def surrogate(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Each sample's part of the loss, less the constant 1 / q, in whose rounding a small p_y would vanish."""
        p_y = bottoms[0].gather(self.geometry, saved["index"])
        now = {**saved, "p_y": p_y}
        value = self.factor(now) / -self.q
        if (pruned := self._pruned(now)) is not None:
            value = value.masked_fill(pruned, -((self.k or 0.0) ** self.q) / self.q)
        value = torch.where(saved["p_y"] < self.smallest, -self._slope(saved) * p_y, value)
        return [counted(value, saved["valid"]) / saved["normaliser"]]
