"""The losses for a training loop of one's own in PyTorch, whose autograd gradient is the explicit one of the layers.

    criterion = imae.IMAELoss(T=8)  # as a function: imae.imae_loss(logits, labels, T=8)
    criterion(model(images), labels).backward()

Logits are C, N x C or N x C x ... (floating point), labels the same without C (integers, 0 to C - 1), as
`torch.nn.CrossEntropyLoss` takes them; the prototxt types `MAELoss`, `IMAELoss` and `GCELoss` take probabilities. All
losses compute in float32 at least, and share these settings:

- `weight` (C): each sample's loss is multiplied by its class's;
- `ignore_index`: a sample with this label counts for nothing;
- `reduction`: "mean" over the samples that count, by their weights (0 where there are none), "sum", or "none", which
  gives each sample's.

They raise InputError for settings, shapes and types that do not fit, for a label that is no class (on a GPU, as
PyTorch's losses, a device-side assertion), and where a second derivative is asked for.
"""

import functools
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from imae.layers.layer import Context, describe
from imae.layers.loss.sample_loss import SampleLoss
from imae.layers.registry import create_layer
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.limits import check_message
from imae.prototxt_like.schema import LayerParameter

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def cce_loss(logits: Tensor, labels: Tensor, **shared: Any) -> Tensor:
    """Return the categorical cross entropy, -log p_y, gradient p - onehot(y), as PyTorch."""
    return _loss(logits, labels, "cce_loss", "SoftmaxWithLoss", [], **shared)


def mae_loss(logits: Tensor, labels: Tensor, **shared: Any) -> Tensor:
    """Return the mean absolute error, 2 (1 - p_y), gradient 2 p_y (p - onehot(y))."""
    return _loss(logits, labels, "mae_loss", "SoftmaxWithMAELoss", [], **shared)


def imae_loss(
    logits: Tensor,
    labels: Tensor,
    T: float = 8.0,
    *,
    epsilon: float = 1e-6,
    normalize_by: str = "SAMPLES",
    **shared: Any,
) -> Tensor:
    """Return the mean absolute error, its gradient rescaled to the weight exp(T p_y (1 - p_y)): see `IMAELoss`."""
    return _loss(logits, labels, "imae_loss", "SoftmaxWithIMAELoss", _imae(T, epsilon, normalize_by), **shared)


def gce_loss(logits: Tensor, labels: Tensor, q: float = 0.7, *, k: float | None = None, **shared: Any) -> Tensor:
    """Return the generalised cross entropy, (1 - p_y^q) / q, gradient p_y^q (p - onehot(y)): see `GCELoss`."""
    return _loss(logits, labels, "gce_loss", "SoftmaxWithGCELoss", [q] if k is None else [q, k], **shared)


class LossForPyTorch(nn.Module):
    """A loss of logits as a module, whose settings are checked when it is made."""

    layer_type: ClassVar[str]
    weight: Tensor | None

    def __init__(self, *, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__()
        self.ignore_index, self.reduction = ignore_index, reduction
        self.register_buffer("weight", weight, persistent=False)
        _check_settings(type(self).__name__, self.layer_type, self.numbers(), weight, reduction)
        _layer(type(self).__name__, self.layer_type, self.numbers(), ignore_index, (1, 2), torch.device("cpu"))

    def numbers(self) -> list[float]:
        """Return the settings that are this loss's own, as numbers."""
        return []

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        shared: Any = {"weight": self.weight, "ignore_index": self.ignore_index, "reduction": self.reduction}
        return _loss(logits, labels, type(self).__name__, self.layer_type, self.numbers(), **shared)

    def extra_repr(self) -> str:
        shown = {name: value for name, value in vars(self).items() if name != "training" and not name.startswith("_")}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())


class CCELoss(LossForPyTorch):
    """Categorical cross entropy: -log p_y, gradient p - onehot(y); as `torch.nn.CrossEntropyLoss`."""

    layer_type = "SoftmaxWithLoss"


class MAELoss(LossForPyTorch):
    """Mean absolute error: 2 (1 - p_y), gradient 2 p_y (p - onehot(y)), of logits."""

    layer_type = "SoftmaxWithMAELoss"


class IMAELoss(LossForPyTorch):
    """Improved mean absolute error: the value of MAE, its gradient rescaled to the weight exp(T p_y (1 - p_y)).

    The gradient is not the derivative of the value (`imae.layers.loss.imae_loss` has it). T is 8 for noisy labels, 0.5
    for clean ones; `epsilon` lets go of a sample that is fitted; `normalize_by="WEIGHTS"` divides the gradient by
    the sum of the weights of the batch, in this process, in place of the number of samples.
    """

    layer_type = "SoftmaxWithIMAELoss"

    def __init__(self, T: float = 8.0, *, epsilon: float = 1e-6, normalize_by: str = "SAMPLES", **shared: Any) -> None:
        self.T, self.epsilon, self.normalize_by = T, epsilon, normalize_by  # before the check that follows
        super().__init__(**shared)

    def numbers(self) -> list[float]:
        """Return T, epsilon, and 1 for a gradient normalised by weights."""
        return _imae(self.T, self.epsilon, self.normalize_by)


class GCELoss(LossForPyTorch):
    """Generalised cross entropy: (1 - p_y^q) / q, gradient p_y^q (p - onehot(y)), of logits.

    With k the truncated form: a sample with p_y <= k gives no gradient.
    """

    layer_type = "SoftmaxWithGCELoss"

    def __init__(self, q: float = 0.7, *, k: float | None = None, **shared: Any) -> None:
        self.q, self.k = q, k  # before the check that follows
        super().__init__(**shared)

    def numbers(self) -> list[float]:
        return [self.q] if self.k is None else [self.q, self.k]


def _imae(T: float, epsilon: float, normalize_by: str) -> list[float]:
    if normalize_by not in ("SAMPLES", "WEIGHTS"):
        raise InputError(f'IMAELoss: normalize_by must be "SAMPLES" or "WEIGHTS", not {normalize_by!r}')
    return [T, epsilon, float(normalize_by == "WEIGHTS")]


def _loss(
    logits: Tensor,
    labels: Tensor,
    name: str,
    type: str,
    numbers: list[float],
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    _check_settings(name, type, numbers, weight, reduction)
    if not logits.is_floating_point():
        raise InputError(f"{name} takes floating-point logits, not {logits.dtype}")
    if labels.dtype not in _INTEGERS:
        raise InputError(f"{name} takes labels as integers, one a sample, not {labels.dtype}")
    if single := logits.dim() == 1:
        logits, labels = logits[None], labels[None]
    if logits.dim() == 0 or labels.shape != logits.shape[:1] + logits.shape[2:]:
        wanted = (
            f"labels of {describe(logits.shape[:1] + logits.shape[2:])}" if logits.dim() else "logits of N x C x ..."
        )
        raise InputError(
            f"{name} takes {wanted}, not logits of {describe(logits.shape)} with labels of {describe(labels.shape)}"
        )
    differentiate = torch.is_grad_enabled() and logits.requires_grad
    values: Tensor = _of_samples(logits, labels, name, type, numbers, ignore_index, differentiate)[0]
    counts = (labels != ignore_index).to(values.dtype)
    if weight is not None:
        if len(weight) != logits.shape[1]:
            raise InputError(f"{name}: {len(weight)} weights do not fit {logits.shape[1]} classes")
        counts = counts * weight.to(values.dtype)[labels.long().where(labels != ignore_index, 0)]
        values = values * counts
    if reduction == "none":
        return values[0] if single else values
    total: Tensor = values.sum()
    if reduction == "sum":
        return total
    return total / counts.sum().clamp_min(1 if weight is None else torch.finfo(values.dtype).tiny)


def _check_settings(name: str, type: str, numbers: list[float], weight: Tensor | None, reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise InputError(f'{name}: reduction must be "mean", "sum" or "none", not {reduction!r}')
    if type == "SoftmaxWithIMAELoss" and numbers[2] and reduction != "mean":
        raise InputError(f'{name}: normalize_by="WEIGHTS" is for the reduction "mean", not {reduction!r}')
    if weight is not None and (weight.dim() != 1 or not weight.is_floating_point()):
        raise InputError(f"{name}: weight takes one floating-point number a class, found {describe(weight.shape)}")


@functools.cache
def _param(name: str, type: str, numbers: tuple[float, ...], ignore: int) -> LayerParameter:
    param = LayerParameter(name=name, type=type, bottom=["logits", "labels"], top=["loss"])
    param.loss_param.ignore_label = ignore
    if type == "SoftmaxWithIMAELoss":
        param.imae_param.T, param.imae_param.epsilon, param.imae_param.normalize_by = *numbers[:2], int(numbers[2])
    elif type == "SoftmaxWithGCELoss":
        for field, number in zip(("q", "k"), numbers, strict=False):
            setattr(param.gce_param, field, number)
    check_message(param, name)
    return param


def _layer(
    name: str, type: str, numbers: list[float], ignore: int, shape: tuple[int, ...], device: torch.device
) -> SampleLoss:
    """The layer that computes a loss of logits of a shape on a device."""
    layer = create_layer(_param(name, type, tuple(numbers), ignore), Context(device=device))
    assert isinstance(layer, SampleLoss)
    shapes = [shape, shape[:1] + shape[2:]]
    layer.setup(shapes)
    layer.reshape(shapes)
    return layer


@torch.library.custom_op("imae::sample_loss", mutates_args=())
def _of_samples(
    logits: Tensor, labels: Tensor, name: str, type: str, numbers: list[float], ignore_index: int, differentiate: bool
) -> tuple[Tensor, Tensor]:
    """Return each sample's loss (N x ...), and if `differentiate` its gradient by the logits (N x C x ...), else (0).

    An operator of its own, which PyTorch's compilers take as it is.
    """
    if labels.is_cuda:  # where the layer itself does not check
        known = (labels >= 0) & (labels < logits.shape[1]) | (labels == ignore_index)
        torch._assert_async(known.all(), f"{name}: a label is out of range")
    layer, saved = _layer(name, type, numbers, ignore_index, tuple(logits.shape), logits.device), dict[str, Any]()
    layer.forward([logits, labels], saved)
    values = layer.value(saved) * saved["valid"]
    if not differentiate:
        return values.reshape(labels.shape), values.new_empty(0)
    gradient = layer.gradient(saved, saved["valid"])
    if (divisor := layer.divisor(saved)) is not saved[
        "normaliser"
    ]:  # the weights' sum, in place of the samples' number
        gradient *= saved["normaliser"] / divisor
    return values.reshape(labels.shape), gradient


@_of_samples.register_fake
def _(
    logits: Tensor, labels: Tensor, name: str, type: str, numbers: Any, ignore_index: int, differentiate: bool
) -> Any:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    gradient = torch.empty_like(logits, dtype=dtype) if differentiate else logits.new_empty(0, dtype=dtype)
    return logits.new_empty(labels.shape, dtype=dtype), gradient


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.name, ctx.dtype = inputs[2], inputs[0].dtype
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, diff: Tensor, _: Any) -> Any:
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise InputError(f"{ctx.name} has no second derivative: call backward or grad without create_graph")
    (gradient,) = ctx.saved_tensors
    return (gradient * diff.unsqueeze(1)).to(ctx.dtype), None, None, None, None, None, None


_of_samples.register_autograd(_backward, setup_context=_keep)
