"""Update rules: how gradients change the weights."""

from typing import ClassVar

import torch
from torch import Tensor

from imae.nets.storage import Storage
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.known_names import CAFFE_SOLVERS, OTHER_NAMES
from imae.prototxt_like.schema import SolverParameter
from imae.prototxt_like.text import did_you_mean


class Update:
    """An update rule over flat storage: gradients are clipped, averaged over `iter_size` passes, regularised, applied.

    `histories` holds the rule's state, laid out as the storage's data: what a solverstate keeps. A subclass says how
    many it has, and applies `step` to one group of equal multipliers.
    """

    type: ClassVar[str]
    slots: ClassVar[int] = 1
    capturable: ClassVar[bool] = False
    """Whether nothing but the rate changes from one `step` to the next, and it may be a tensor."""

    def __init__(self, param: SolverParameter, storage: Storage) -> None:
        self.param, self.storage = param, storage
        self.histories = [torch.zeros_like(storage.data) for _ in range(self.slots)]
        if param.regularization_type not in ("L1", "L2"):
            raise InputError(f'solver: regularization_type must be "L1" or "L2", not "{param.regularization_type}"')

    def apply(self, rate: float | Tensor) -> None:
        """Change the weights at learning rate `rate` (as a tensor: a float64 scalar); leaves the gradients changed."""
        param, diff = self.param, self.storage.diff
        if param.clip_gradients >= 0:
            norm = diff.norm()
            diff.mul_(torch.where(norm > param.clip_gradients, param.clip_gradients / norm, 1.0))
        if param.iter_size > 1:
            diff.mul_(1 / param.iter_size)
        for group in self.storage.groups:
            if not group.lr_mult:
                continue
            if decay := param.weight_decay * group.decay_mult:
                weights = group.data if param.regularization_type == "L2" else group.data.sign()
                group.diff.add_(weights, alpha=decay)
            histories = [history[group.span] for history in self.histories]
            self.step(group.data, group.diff, histories, rate * group.lr_mult)

    def step(self, data: Tensor, diff: Tensor, histories: list[Tensor], rate: float | Tensor) -> None:
        """Update `data` (flat) by its regularised gradient `diff`."""
        raise NotImplementedError


class SGD(Update):
    """h <- momentum h + rate dw; w <- w - h: the rate is inside the momentum, unlike in PyTorch's SGD."""

    type = "SGD"
    capturable = True

    def step(self, data: Tensor, diff: Tensor, histories: list[Tensor], rate: float | Tensor) -> None:
        """h <- momentum h + rate dw; w <- w - h."""
        history = histories[0].mul_(self.param.momentum)
        if isinstance(rate, Tensor):
            history.addcmul_(diff, rate.to(diff.dtype))
        else:
            history.add_(diff, alpha=rate)
        data.sub_(history)


UPDATES: dict[str, type[Update]] = {rule.type: rule for rule in (SGD,)}


def create_update(param: SolverParameter, storage: Storage) -> Update:
    """Return the update rule that the solver's `type` names; raises InputError for an unknown one."""
    if param.type not in UPDATES:
        known = f"; known are {', '.join(UPDATES)}"
        if param.type in CAFFE_SOLVERS:
            raise InputError(f'solver: the type "{param.type}" of Caffe is not here yet{known}')
        hint = did_you_mean(param.type, [*UPDATES, *sorted(CAFFE_SOLVERS - set(UPDATES))], OTHER_NAMES)
        raise InputError(f'solver: unknown type "{param.type}"{hint or known}')
    return UPDATES[param.type](param, storage)
