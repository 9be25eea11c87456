"""The number of a net's forward pass, from which, with the seed, all that is random in the pass follows."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class PassCounter:
    """Counts the forward passes of a net, so that a pass is a function of (weights, seed, number).

    The number rises by `stride` a pass: 1, or the number of processes where several take turns with the passes.
    """

    seed: int = 0
    number: int = 0
    stride: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    on_device: Tensor | None = None  # the number as an int64 scalar there, where a captured pass must read it

    @property
    def current(self) -> int | Tensor:
        """The number: the scalar on the device where there is one."""
        return self.number if self.on_device is None else self.on_device

    def advance(self) -> None:
        """Go on to the next pass."""
        self.number += self.stride

    def go_back(self) -> None:
        """Return to the pass before, if there was one."""
        self.number = max(0, self.number - self.stride)

    def counters(self, count: int) -> Tensor:
        """Return the `count` integers (int64) that belong to this pass alone: those of pass n begin at n count."""
        if self.on_device is None:
            return torch.arange(self.number * count, (self.number + 1) * count, device=self.device)
        return torch.arange(count, device=self.device) + self.on_device * count
