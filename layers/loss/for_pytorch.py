"""The losses for a training loop of one's own in PyTorch, whose autograd gradient is the explicit one of the layers.

    loss = imae.IMAELoss(T=8)
    loss(model(images), labels).backward()

They take logits, as `torch.nn.CrossEntropyLoss` does, and as the prototxt types `SoftmaxWith...` do; the prototxt types
`MAELoss`, `IMAELoss` and `GCELoss` take probabilities.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from imae.layers.layer import Context, Layer, Saved, Shape, describe
from imae.layers.registry import create_layer
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.limits import check_message
from imae.prototxt_like.schema import LayerParameter

_NORMALIZATION = {"mean": "VALID", "sum": "NONE"}


class LossForPyTorch(nn.Module):
    """The mean or sum over samples of a loss of logits.

    Called with logits (N x C x ..., floating point) and labels (N x ..., integers, 0 to C - 1), it returns a scalar,
    computed in float32 at least. A sample whose label is `ignore_index` counts for nothing; the mean is over the others
    (0 where there are none). There is no second derivative.

    A subclass names the layer that computes it and gives that layer's settings. Raises InputError for settings, shapes
    and types that do not fit, and for a label that is no class; on a GPU, as PyTorch's losses, a device-side assertion.
    """

    layer_type: ClassVar[str]

    def __init__(self, *, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__()
        self.ignore_index, self.reduction = ignore_index, reduction
        self._layer((1, 2), torch.device("cpu"))  # raises for a wrong setting, here already

    def settings(self) -> Mapping[str, Any]:
        """Return the fields of the layer's prototxt."""
        return {}

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        name = type(self).__name__
        if not logits.is_floating_point():
            raise InputError(f"{name} takes floating-point logits, not {logits.dtype}")
        if labels.is_floating_point() or labels.is_complex():
            raise InputError(f"{name} takes labels as integers, one a sample, not {labels.dtype}")
        expected = logits.shape[:1] + logits.shape[2:]
        if logits.dim() < 2 or labels.shape != expected:
            wanted = f"labels of {describe(expected)}" if logits.dim() >= 2 else "logits of N x C x ..."
            raise InputError(
                f"{name} takes {wanted}, not logits of {describe(logits.shape)} with labels of {describe(labels.shape)}"
            )
        if labels.is_cuda:  # where the layer itself does not check
            known = (labels >= 0) & (labels < logits.shape[1]) | (labels == self.ignore_index)
            torch._assert_async(known.all(), f"{name}: a label is out of range")
        layer = self._layer(tuple(logits.shape), logits.device)
        loss: Tensor = _Explicit.apply(logits, labels, layer)
        return loss

    def extra_repr(self) -> str:
        """Its settings."""
        shown = {name: value for name, value in vars(self).items() if name != "training" and not name.startswith("_")}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())

    def _layer(self, logits: Shape, device: torch.device) -> Layer:
        """The layer of these settings, for logits of a shape on a device."""
        if self.reduction not in _NORMALIZATION:
            raise InputError(f'{type(self).__name__}: reduction must be "mean" or "sum", not {self.reduction!r}')
        loss_param = {"ignore_label": self.ignore_index, "normalization": _NORMALIZATION[self.reduction]}
        ends = {"bottom": ["logits", "labels"], "top": ["loss"]}
        param = LayerParameter(
            name=type(self).__name__, type=self.layer_type, loss_param=loss_param, **ends, **self.settings()
        )
        check_message(param, type(self).__name__)
        layer = create_layer(param, Context(device=device))
        shapes = [logits, logits[:1] + logits[2:]]
        layer.setup(shapes)
        layer.reshape(shapes)
        return layer


class CCELoss(LossForPyTorch):
    """Categorical cross entropy: -log p_y, gradient p - onehot(y); as `torch.nn.CrossEntropyLoss`."""

    layer_type = "SoftmaxWithLoss"


class MAELoss(LossForPyTorch):
    """Mean absolute error: 2 (1 - p_y), gradient 2 p_y (p - onehot(y)), of logits.

    The prototxt type of this name takes probabilities.
    """

    layer_type = "SoftmaxWithMAELoss"


class IMAELoss(LossForPyTorch):
    """Improved mean absolute error: the value of MAE, its gradient rescaled to the weight exp(T p_y (1 - p_y)).

    The gradient is not the derivative of the value (`imae.layers.loss.imae_loss` has it). T is 8 for noisy labels, 0.5
    for clean ones; `epsilon` lets go of a sample that is fitted; `normalize_by="WEIGHTS"` divides the gradient by the
    sum of the weights of the batch, in this process, in place of the number of samples. The prototxt type of this name
    takes probabilities.
    """

    layer_type = "SoftmaxWithIMAELoss"

    def __init__(
        self,
        T: float = 8.0,
        *,
        epsilon: float = 1e-6,
        normalize_by: str = "SAMPLES",
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        if normalize_by not in ("SAMPLES", "WEIGHTS"):
            raise InputError(f'IMAELoss: normalize_by must be "SAMPLES" or "WEIGHTS", not {normalize_by!r}')
        self.T, self.epsilon, self.normalize_by = T, epsilon, normalize_by  # before the check that follows
        super().__init__(ignore_index=ignore_index, reduction=reduction)

    def settings(self) -> Mapping[str, Any]:
        """Return `imae_param`."""
        return {"imae_param": {"T": self.T, "epsilon": self.epsilon, "normalize_by": self.normalize_by}}


class GCELoss(LossForPyTorch):
    """Generalised cross entropy: (1 - p_y^q) / q, gradient p_y^q (p - onehot(y)), of logits.

    With k the truncated form: a sample with p_y <= k gives no gradient. The prototxt type of this name takes
    probabilities.
    """

    layer_type = "SoftmaxWithGCELoss"

    def __init__(
        self, q: float = 0.7, *, k: float | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        self.q, self.k = q, k  # before the check that follows
        super().__init__(ignore_index=ignore_index, reduction=reduction)

    def settings(self) -> Mapping[str, Any]:
        """Return `gce_param`."""
        return {"gce_param": {"q": self.q, "k": self.k}}


class _Explicit(torch.autograd.Function):
    """A loss layer as a function that autograd differentiates by the layer's `backward`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, layer: Layer) -> Tensor:
        """Run the layer, and keep what it saves: tensors where autograd sees that they have not been written since."""
        saved: Saved = {}
        (loss,) = layer.forward([logits, labels], saved)
        ctx.layer = layer
        ctx.names = [name for name, value in saved.items() if isinstance(value, Tensor)]
        ctx.others = {name: value for name, value in saved.items() if name not in ctx.names}
        ctx.save_for_backward(*(saved[name] for name in ctx.names))
        return loss

    @staticmethod
    def backward(ctx: Any, diff: Tensor) -> tuple[Tensor | None, None, None]:
        """Return the layer's gradient; raises InputError where a second derivative is asked for."""
        if torch.is_grad_enabled():
            raise InputError(f"{ctx.layer.name} has no second derivative: call backward or grad without create_graph")
        saved = {**dict(zip(ctx.names, ctx.saved_tensors, strict=True)), **ctx.others}
        return ctx.layer.backward([], [], [diff], saved, [True, False])[0], None, None
