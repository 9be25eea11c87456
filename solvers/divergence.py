"""Noticing a training that diverged: losses, outputs and weights that are NaN or infinite, a loss that sticks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Tensors
from imae.nets.net import Net
from imae.nets.step import Observer, Step
from imae.prototxt_like.errors import InputError

OnDivergence = Literal["stop", "warn"]
STUCK = -math.log(torch.finfo(torch.float32).tiny)
"""87.3365, Caffe's loss of a sample whose label has no probability left: its smallest normal float's logarithm."""
_PART = 2**24  # values that are looked at in one go
_PENDING = 1000  # losses that wait on a device to be looked at, at most


class Diverged(InputError):
    """A loss, an output or a weight turned NaN or infinite: what it computes from then on means nothing."""


def loss_weights(net: Net) -> dict[str, float]:
    """Return the weights in the loss of the tops of a net, by name."""
    tops = ((step.layer.param.top, step.loss_weights) for step in net.steps)
    return {top: weight for names, weights in tops for top, weight in zip(names, weights, strict=True)}


def unweighted_outputs(net: Net) -> list[str]:
    """Return the outputs of a net that are no part of its loss."""
    weights = loss_weights(net)
    return [name for name in net.outputs if not weights[name]]


def watched(loss: Tensor, outputs: Mapping[str, Tensor], unweighted: Sequence[str]) -> Tensor:
    """Return the loss, or NaN where one of the `unweighted` outputs holds a NaN or an infinity."""
    for name in unweighted:
        loss = loss + (outputs[name] * 0).sum().to(loss.dtype)
    return loss


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether no value of the tensors is NaN or infinite."""
    # In parts, as the intermediate values of one that is as large as a net's weights would be as large.
    parts = (part for tensor in tensors for part in torch.split(tensor if tensor.dim() else tensor[None], _PART))
    return all(torch.stack([part.isfinite().all() for part in parts]).tolist())


def not_finite(outputs: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the outputs that hold a NaN or an infinity."""
    return [name for name, value in outputs.items() if not value.isfinite().all()]


def first_not_finite(net: Net, passes: int = 1) -> str:
    """Return what first holds a NaN or an infinity when the last `passes` passes of a net run once more.

    That is a parameter, a layer's top, or a gradient; empty if nothing does. All but the gradients stays as it was.
    """
    for name, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            if not are_finite([blob.data]):
                return f'parameter {i} of layer "{name}"'
    look = _FirstNotFinite(net)
    statistics = [group.data for group in net.storage.groups if not group.lr_mult]
    before = [tensor.clone() for tensor in statistics]
    counter = net.context.passes
    counter.number -= passes * counter.stride
    observer, net.observer = net.observer, look
    try:
        net.clear_diffs()
        for _ in range(passes):
            net.forward()
            net.backward()
    finally:
        net.observer = observer
        for tensor, value in zip(statistics, before, strict=True):
            tensor.copy_(value)
    return look.found


class _FirstNotFinite(Observer):
    """Notes in `found` what first holds a NaN or an infinity."""

    def __init__(self, net: Net) -> None:
        self._names, self.found = net.names, ""

    def _look(self, what: str, value: Tensor | None) -> None:
        if not self.found and value is not None and not are_finite([value]):
            self.found = what

    def forward(self, step: Step, tops: Tensors) -> None:
        """Look at its tops."""
        for index, top in zip(step.tops, tops, strict=True):
            self._look(f'blob "{self._names[index]}" of layer "{step.layer.name}"', top)

    def backward(self, step: Step, top_diffs: Tensors, bottom_diffs: Diffs) -> None:
        """Look at the gradients by its bottoms and its blobs."""
        where = f'layer "{step.layer.name}"'
        for index, diff in zip(step.bottoms, bottom_diffs, strict=False):
            self._look(f'the gradient by blob "{self._names[index]}" of {where}', diff)
        for i, blob in enumerate(step.layer.blobs):
            self._look(f"the gradient by parameter {i} of {where}", blob.diff)


def stuck(net: Net, outputs: Mapping[str, Tensor]) -> list[str]:
    """Return those of a net's outputs that are part of its loss and Caffe's 87.3365."""
    weights = loss_weights(net)
    return [name for name, value in outputs.items() if weights[name] and ((value - STUCK).abs() < 1e-3).any()]


class LossWatch:
    """Looks at each iteration's loss: on a CPU at once, on a GPU, which would have to be waited for, when asked to."""

    def __init__(self, device: torch.device) -> None:
        self._limit = 1 if device.type == "cpu" else _PENDING
        self._pending: list[tuple[int, float, Tensor]] = []

    def note(self, iteration: int, rate: float, loss: Tensor) -> bool:
        """Remember the loss (a scalar) of an iteration and its learning rate; return whether it is time to look."""
        self._pending.append((iteration, rate, loss))
        return len(self._pending) >= self._limit

    def first_bad(self) -> tuple[int, float, float] | None:
        """Return iteration, learning rate and loss of the first that was not finite since the last look, if one was."""
        pending, self._pending = self._pending, []
        losses = torch.stack([loss for _, _, loss in pending]).tolist() if pending else []
        for (iteration, rate, _), loss in zip(pending, losses, strict=True):
            if not math.isfinite(loss):
                return iteration, rate, loss
        return None
