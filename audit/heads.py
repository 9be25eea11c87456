"""Heads over features, trained side by side: one fully connected layer, or two with a ReLU between, and a softmax.

All heads of a call see the same batches, so one product of matrices serves them all: several settings, seeds and folds
cost little more than one. Their gradients are those of the layers `InnerProduct`, `ReLU` and `SoftmaxWith...Loss`.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imae.audit.features import Features
from imae.layers.waiting import one_thread

LOSSES = ("IMAE", "GCE", "CCE", "MAE")
EPSILON = 1e-6
"""Of IMAE, as `imae_param.epsilon` has it."""
EPOCHS = 6
"""Passes over the samples that a head is trained for, at least."""
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
SMALL = 2**16
"""Weights up to which heads are trained by one thread: several would wait for each other longer than they compute."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Setting:
    """How a head is trained."""

    loss: str
    """One of LOSSES."""
    parameter: float
    """T of IMAE, q of GCE; the others have none."""
    rate: float
    """The learning rate."""


def factor(loss: str, parameter: Tensor | float, p_y: Tensor, d: Tensor) -> Tensor:
    """Return what p - onehot(y) is multiplied by in the gradient of a loss by the logits; d = 1 - p_y, summed exactly.

    IMAE's w/2 d / (d + epsilon/2) (r - onehot(y)) is w/2 / (d + epsilon/2) (p - onehot(y)), as r d = p but at y.
    """
    if loss == "IMAE":
        return torch.exp(parameter * p_y * d) / (2 * d + EPSILON)
    if loss == "GCE":
        return p_y**parameter
    return 2 * p_y if loss == "MAE" else torch.ones_like(p_y)


def logits_gradient(loss: str, parameter: Tensor | float, logits: Tensor, index: Tensor, counts: Tensor) -> Tensor:
    """Return the gradient of each sample's loss by its `logits` (... x C x B); index (... x 1 x B): its label.

    It is multiplied by `counts`, which is broadcast (... x 1 x B), as `parameter` is.
    """
    p = (logits - logits.amax(-2, keepdim=True)).exp_()
    p /= p.sum(-2, keepdim=True)
    p_y = p.gather(-2, index)
    p.scatter_(-2, index, 0.0)
    d = p.sum(-2, keepdim=True)
    return p.scatter_(-2, index, -d).mul_(factor(loss, parameter, p_y, d) * counts)


class Heads:
    """K heads: logits = W x + b for C classes, or W max(0, W1 x + b1) + b with `hidden` values in between."""

    def __init__(self, count: int, width: int, classes: int, hidden: int, generator: torch.Generator) -> None:
        self.count, self.classes, self.hidden = count, classes, hidden
        self.weights = [torch.zeros(count, classes, hidden or width), torch.zeros(count, classes)]
        if hidden:
            spread = (2 / width) ** 0.5
            first = torch.randn(count, hidden, width, generator=generator) * spread
            self.weights[0] = torch.randn(count, classes, hidden, generator=generator) / hidden**0.5 / 4
            self.weights = [first, torch.zeros(count, hidden), *self.weights]

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (K x C x B) of rows x (B x D); samples come last, as operations along them are fast."""
        return self._forward(x)[0]

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits, and the hidden values (K x H x B) after their ReLU."""
        *first, weight, bias = self.weights
        if not first:
            return torch.addmm(bias.view(-1, 1), weight.flatten(0, 1), x.t()).view(*bias.shape, len(x)), None
        hidden = torch.addmm(first[1].view(-1, 1), first[0].flatten(0, 1), x.t()).relu_()
        hidden = hidden.view(self.count, self.hidden, len(x))
        return torch.baddbmm(bias[..., None], weight, hidden), hidden

    def gradients(self, x: Tensor, index: Tensor, counts: Tensor, loss: str, parameter: Tensor) -> list[Tensor]:
        """Return the gradients of the mean loss over the batch by the weights.

        x: B x D; index: B, the labels; counts: K x B, or 1 x B for all heads, the weight of each sample.
        """
        logits, hidden = self._forward(x)
        index = index.expand(self.count, 1, len(x))
        dz = logits_gradient(loss, parameter.view(-1, 1, 1), logits, index, counts[:, None] / len(x))
        if hidden is None:
            return [(dz.flatten(0, 1) @ x).view(self.weights[0].shape), dz.sum(-1)]
        dh = (self.weights[2].transpose(1, 2) @ dz).mul_(hidden > 0)
        first = (dh.flatten(0, 1) @ x).view(self.weights[0].shape)
        return [first, dh.sum(-1), dz @ hidden.transpose(1, 2), dz.sum(-1)]

    def take(self, heads: Sequence[int]) -> "Heads":
        """Return some of the heads, by number."""
        taken = object.__new__(Heads)
        taken.count, taken.classes, taken.hidden = len(heads), self.classes, self.hidden
        taken.weights = [weight[list(heads)] for weight in self.weights]
        return taken


def joined(heads: Sequence[Heads]) -> Heads:
    """Return heads of several trainings as one."""
    together = heads[0].take([0])
    together.weights = [torch.cat(weights) for weights in zip(*(each.weights for each in heads), strict=True)]
    together.count = len(together.weights[0])
    return together


def batch_size(samples: int) -> int:
    """Return how many samples a batch has: 256, fewer where there are less than 5,120."""
    return max(8, min(256, samples // 20))


def enough_iterations(least: int, samples: int) -> int:
    """Return how many iterations are `EPOCHS` passes over the samples, and not less than `least`."""
    return max(least, EPOCHS * samples // batch_size(samples))


def train_heads(
    features: Features,
    labels: Tensor,
    classes: int,
    settings: Sequence[Setting],
    *,
    iterations: int,
    stops: Sequence[float] = (1.0,),
    counts: Tensor | None = None,
    hidden: int = 0,
    seed: int = 0,
    on_progress: Progress = lambda done, total: None,
) -> list[Heads]:
    """Train a head for each of `settings`, all of one loss, and return them as they are at each of `stops`.

    labels: N; `counts` (N x K, or None for all): which samples each head is trained on. A stop is a fraction of
    `iterations`; what is returned for it is the mean of the weights over the half before it: over the late iterations.
    SGD with momentum at a constant rate, samples in a new random order each epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    heads = Heads(len(settings), features.width, classes, hidden, generator)
    rates = torch.tensor([setting.rate for setting in settings])
    parameter = torch.tensor([setting.parameter for setting in settings])
    momenta = [torch.zeros_like(weight) for weight in heads.weights]
    means = [[torch.zeros_like(weight) for weight in heads.weights] for _ in stops]
    ends = [max(1, round(stop * iterations)) for stop in stops]
    batch = batch_size(len(labels))
    by_head = torch.ones(1, len(labels)) if counts is None else counts.t().float()
    order = torch.empty(0, dtype=torch.long)
    small = sum(weight.numel() for weight in heads.weights) <= SMALL
    with one_thread() if small else contextlib.nullcontext():
        for iteration in range(1, iterations + 1):
            if len(order) < batch:
                order = torch.randperm(len(labels), generator=generator)
            chosen, order = order[:batch].sort().values, order[batch:]
            x, counted = features.rows(chosen), by_head.index_select(1, chosen)
            gradients = heads.gradients(x, labels[chosen], counted, settings[0].loss, parameter)
            for weight, momentum, gradient in zip(heads.weights, momenta, gradients, strict=True):
                rate = rates.view(-1, *[1] * (weight.dim() - 1))
                if weight.dim() == 3:
                    gradient.add_(weight, alpha=WEIGHT_DECAY)
                momentum.mul_(MOMENTUM).add_(gradient.mul_(rate))
                weight.sub_(momentum)
            for mean, end in zip(means, ends, strict=True):
                if end // 2 < iteration <= end:
                    for total, weight in zip(mean, heads.weights, strict=True):
                        total.add_(weight, alpha=1 / (end - end // 2))
            on_progress(iteration, iterations)
    trained = []
    for mean in means:
        stopped = heads.take(range(heads.count))
        stopped.weights = mean
        trained.append(stopped)
    return trained


def all_logits(heads: Heads, features: Features) -> Tensor:
    """Return the logits (K x C x N) of all samples."""
    every = torch.arange(len(features))
    return torch.cat([heads.logits(features.rows(part)) for part in torch.split(every, 8192)], -1)
