"""Update rules: how gradients change the weights."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from imae.nets.storage import Storage
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.known_names import OTHER_NAMES
from imae.prototxt_like.schema import SolverParameter
from imae.prototxt_like.text import did_you_mean


class Update:
    """An update rule over flat storage: gradients are clipped, averaged over `iter_size` passes, regularised, applied.

    `histories` holds the rule's state, laid out as the storage's data: what a solverstate keeps, all blobs' of the
    first, then all of the second. A subclass says how many it has, and applies `_step` to one group of equal
    multipliers; of what changes from one step to the next it reads the rate, which may be a tensor, and tensors that
    keep their place, so that a step can be captured in a CUDA graph.
    """

    slots: ClassVar[int] = 1
    takes_momentum: ClassVar[bool] = True
    fractions: ClassVar[tuple[str, ...]] = ()  # the settings that must lie in [0, 1), beside the momentum
    rate_in_history: ClassVar[bool] = False
    """Whether at rate 0 nothing enters a history. Otherwise those of fixed weights follow their decay, as in Caffe."""

    def __init__(self, param: SolverParameter, storage: Storage) -> None:
        self.param, self.storage = param, storage
        self.histories = [torch.zeros_like(storage.data) for _ in range(self.slots)]
        if param.regularization_type not in ("L1", "L2"):
            raise InputError(f'solver: regularization_type must be "L1" or "L2", not "{param.regularization_type}"')
        if param.momentum and not self.takes_momentum:
            raise InputError(f"solver: {type(self).__name__} takes no momentum, found momentum: {param.momentum:g}")
        for field in self.fractions:
            value = getattr(param, field)
            if not 0 <= value < 1:
                raise InputError(f"solver: {field} must lie in [0, 1), not {value:g}")

    def at(self, iteration: int) -> None:
        """Say that the next `apply` is the update of this iteration, counted from 0."""

    def apply(self, rate: float | Tensor) -> None:
        """Change the weights at learning rate `rate` (as a tensor: a float64 scalar); leaves the gradients changed."""
        param, diff = self.param, self.storage.diff
        if param.clip_gradients >= 0:
            norm = diff.norm()
            diff.mul_(torch.where(norm > param.clip_gradients, param.clip_gradients / norm, 1.0))
        if param.iter_size > 1:
            diff.mul_(1 / param.iter_size)
        for group in self.storage.groups:
            if not group.lr_mult and self.rate_in_history:
                continue
            if decay := param.weight_decay * group.decay_mult:
                weights = group.data if param.regularization_type == "L2" else group.data.sign()
                group.diff.add_(weights, alpha=decay)
            histories = [history[group.span] for history in self.histories]
            # Not times 0, which would make an infinite rate NaN.
            self._step(group.data, group.diff, histories, rate * group.lr_mult if group.lr_mult else 0.0)

    def _step(self, data: Tensor, diff: Tensor, histories: list[Tensor], rate: float | Tensor) -> None:
        """Update `data` (flat) by its regularised gradient `diff`, which may be overwritten."""
        raise NotImplementedError


class SGD(Update):
    """h <- momentum h + rate dw; w <- w - h: the rate is inside the momentum, unlike in PyTorch's SGD."""

    rate_in_history = True

    def _step(self, data: Tensor, diff: Tensor, histories: list[Tensor], rate: float | Tensor) -> None:
        history = histories[0].mul_(self.param.momentum)
        _add(history, diff, rate)
        data.sub_(history)


class Nesterov(Update):
    """SGD that looks ahead by the next step's momentum.

    h' = momentum h + rate dw; w <- w - ((1 + momentum) h' - momentum h) = w - (momentum h' + rate dw). Nesterov (1983),
    as in Sutskever et al. (2013), equations 3 and 4.
    """

    rate_in_history = True

    def _step(self, data: Tensor, diff: Tensor, histories: list[Tensor], rate: float | Tensor) -> None:
        momentum, scaled = self.param.momentum, diff.mul_(rate)
        history = histories[0].mul_(momentum).add_(scaled)
        data.sub_(scaled.add_(history, alpha=momentum))


class AdaGrad(Update):
    """h <- h + dw^2; w <- w - rate dw / (sqrt(h) + delta). Duchi et al. (2011)."""

    takes_momentum = False

    def _step(self, data: Tensor, diff: Tensor, histories: list[Tensor], rate: float | Tensor) -> None:
        history = histories[0].addcmul_(diff, diff)
        _add(data, diff.div_(history.sqrt().add_(self.param.delta)), -rate)


class RMSProp(Update):
    """h <- rms_decay h + (1 - rms_decay) dw^2; w <- w - rate dw / (sqrt(h) + delta). Tieleman and Hinton (2012)."""

    takes_momentum = False
    fractions = ("rms_decay",)

    def _step(self, data: Tensor, diff: Tensor, histories: list[Tensor], rate: float | Tensor) -> None:
        history = _average(histories[0], diff, self.param.rms_decay)
        _add(data, diff.div_(history.sqrt().add_(self.param.delta)), -rate)


class AdaDelta(Update):
    """Steps in proportion to the size of earlier steps over that of gradients. Zeiler (2012).

    h <- momentum h + (1 - momentum) dw^2; s = dw sqrt((u + delta) / (h + delta));
    u <- momentum u + (1 - momentum) s^2; w <- w - rate s.
    """

    slots = 2

    def _step(self, data: Tensor, diff: Tensor, histories: list[Tensor], rate: float | Tensor) -> None:
        momentum, delta = self.param.momentum, self.param.delta
        gradients, steps = histories
        _average(gradients, diff, momentum)
        step = diff.mul_((steps + delta).div_(gradients + delta).sqrt_())
        _average(steps, step, momentum)
        _add(data, step, -rate)


class Adam(Update):
    """Means of gradient and square, corrected for their beginning at 0. Kingma and Ba (2014), the form of section 2.

    m <- b1 m + (1 - b1) dw; v <- b2 v + (1 - b2) dw^2; w <- w - rate c m / (sqrt(v) + delta), where
    c = sqrt(1 - b2^t) / (1 - b1^t) for the t-th update, b1 is the momentum and b2 is momentum2.
    """

    slots = 2
    fractions = ("momentum2",)

    def __init__(self, param: SolverParameter, storage: Storage) -> None:
        super().__init__(param, storage)
        self._correction = torch.zeros((), dtype=torch.float64, device=storage.data.device)
        self.at(0)

    def at(self, iteration: int) -> None:
        """Compute c of update `iteration` + 1: on the host, where powers of float64 are cheap, for the device."""
        t = iteration + 1
        self._correction.fill_(math.sqrt(1 - self.param.momentum2**t) / (1 - self.param.momentum**t))

    def _step(self, data: Tensor, diff: Tensor, histories: list[Tensor], rate: float | Tensor) -> None:
        mean, square = histories
        mean.mul_(self.param.momentum).add_(diff, alpha=1 - self.param.momentum)
        _average(square, diff, self.param.momentum2)
        scale = torch.sqrt(square, out=diff).add_(self.param.delta)
        _add(data, torch.div(mean, scale, out=diff), -rate * self._correction)


def _add(target: Tensor, value: Tensor, factor: float | Tensor) -> None:
    """target += factor value."""
    if isinstance(factor, Tensor):
        target.addcmul_(value, factor.to(value.dtype))
    else:
        target.add_(value, alpha=factor)


def _average(history: Tensor, value: Tensor, decay: float) -> Tensor:
    """history <- decay history + (1 - decay) value^2; return it."""
    return history.mul_(decay).addcmul_(value, value, value=1 - decay)


UPDATES: dict[str, type[Update]] = {rule.__name__: rule for rule in (SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam)}


def create_update(param: SolverParameter, storage: Storage) -> Update:
    """Return the update rule that the solver's `type` names; raises InputError for an unknown one."""
    if param.type not in UPDATES:
        hint = did_you_mean(param.type, UPDATES, OTHER_NAMES) or f"; known are {', '.join(UPDATES)}"
        raise InputError(f'solver: unknown type "{param.type}"{hint}')
    return UPDATES[param.type](param, storage)
