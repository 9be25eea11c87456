"""Generalised cross entropy (GCE), between CCE (q -> 0) and MAE (q = 1)."""

from torch import Tensor

from imae.layers.layer import Saved, Shapes, register
from imae.layers.loss.sample_loss import OnLogits, OnProbabilities, SampleLoss


class GeneralisedCrossEntropy(SampleLoss):
    """(1 - p_y^q) / q; gradient by the logits p_y^q (p - onehot(y)); weight 2 p_y^q (1 - p_y).

    Zhang and Sabuncu 2018. `gce_param`: q in (0, 1], 0.7 as theirs; with k the truncated form: from forward pass
    `start_iter` on, a sample with p_y <= k has the value (1 - k^q) / q and gives no gradient.
    """

    def setup(self, bottoms: Shapes) -> Shapes:
        """Check q and k."""
        param = self.param.gce_param
        self.q, self.k, self.start_iter = param.q, param.k if param.HasField("k") else None, param.start_iter
        if not 0 < self.q <= 1:
            raise self.error(f"gce_param.q must lie in (0, 1], not {self.q:g}")
        if self.k is not None and not 0 <= self.k < 1:
            raise self.error(f"gce_param.k must lie in [0, 1), not {self.k:g}")
        return super().setup(bottoms)

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """As any SampleLoss, truncated from pass `start_iter` on."""
        number = self.context.forwards if self.context.number is None else self.context.number
        self._truncates = saved["truncates"] = number >= self.start_iter
        return super().forward(bottoms, saved)

    def backward(self, top_diffs: list[Tensor], saved: Saved, needs: list[bool]) -> list[Tensor | None]:
        """As any SampleLoss, truncated if forward was: by now the net counts one pass more."""
        self._truncates = saved["truncates"]
        return super().backward(top_diffs, saved, needs)

    def value(self, p_y: Tensor) -> Tensor:
        """(1 - p_y^q) / q."""
        return (1 - self._pruned(p_y, self.k or 0.0).pow(self.q)).div(self.q)

    def factor(self, p_y: Tensor) -> Tensor:
        """p_y^q."""
        return self._pruned(p_y, 0.0).pow(self.q)

    def _pruned(self, p_y: Tensor, value: float) -> Tensor:
        """p_y, and `value` for the samples that the truncated form prunes."""
        if self.k is None or self._truncates is False:
            return p_y
        kept = p_y > self.k
        if isinstance(self._truncates, Tensor):
            kept = kept | ~self._truncates
        return p_y.where(kept, value)


@register
class SoftmaxWithGCELoss(GeneralisedCrossEntropy, OnLogits):
    """Generalised cross entropy of logits."""

    type = "SoftmaxWithGCELoss"


@register
class GCELoss(GeneralisedCrossEntropy, OnProbabilities):
    """Generalised cross entropy of probabilities."""

    type = "GCELoss"
