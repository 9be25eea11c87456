"""From a head's logits to the probability that a label is wrong, with no label known to be right.

Each label is taken for a draw from the row of a transition matrix T that belongs to the sample's true class t:

    P(label = y | x) = sum over t of p(t | x) T[t, y],    p(. | x) = softmax(a z(x) + ...)

T and what sharpens or softens the logits z are those under which the labels are most probable. By Bayes' rule the label
is wrong with the probability 1 - p(y | x) T[y, y] / P(y | x).

Of more than `MANY` classes, whose C x C entries few labels say anything about, T has one number alone: a label is wrong
with probability e whatever the class, and every other class is as likely, T[t, y] = e / (C - 1).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SAMPLES = 10_000
"""So many samples, drawn at random, T is found by."""
ITERATIONS = 30
"""Of L-BFGS, at most."""
AT_DIAGONAL = 1.0
"""Labels that the diagonal of T has in advance, for each class; half of it is spread over the row."""
SCALE_PRIOR = (0.5, 20.0)
"""The logits' scale is expected within so large a factor (its logarithm's deviation), as if by so many samples."""
RIDGE = (3.0, 300.0)
"""How strongly the logits are held to be mixed by nothing but a scale: at least, and times the square of the noise."""
MANY = 200
"""Classes up to which T has an entry for each two of them, and the logits are mixed."""
ENTRIES = 2**23
"""Logits at most that it is found by."""
BOOTSTRAPS = 50
_TINY = 1e-30


@dataclass(frozen=True)
class NoiseModel:
    """What was found from logits and labels."""

    transition: Tensor
    """T: C x C, row: true class, column: label."""
    mix: Tensor
    """C x C, or one scale: the logits are multiplied by it."""
    bias: Tensor
    """C, added to them."""

    def truth(self, logits: Tensor) -> Tensor:
        """Return p(t | x): N x C."""
        return torch.softmax((logits @ self.mix if self.mix.dim() else logits * self.mix) + self.bias, 1)

    def posterior(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the probability of each true class, given sample and label: N x C."""
        return posterior(self.truth(logits), self.transition, labels)[0]

    def log_likelihood(self, logits: Tensor, labels: Tensor) -> float:
        """Return the mean log-probability of the labels."""
        return float(posterior(self.truth(logits), self.transition, labels)[1].log().mean())


def posterior(truth: Tensor, transition: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probability of each true class given the label (N x C), and that of the label (N)."""
    joint = truth * transition.t()[labels]
    total = joint.sum(1).clamp_min(_TINY)
    return joint / total[:, None], total


def counted_transition(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return how often (fractions, C x C) samples of each predicted class have each label; no entry is 0."""
    table = torch.zeros(classes, classes).index_put_((predicted, labels), torch.ones(len(labels)), accumulate=True)
    table += 0.01 * len(labels) / classes**2 + AT_DIAGONAL * torch.eye(classes)
    return table / table.sum(1, keepdim=True)


def fit_noise_model(
    logits: Tensor,
    labels: Tensor,
    *,
    mixed: bool = False,
    start: NoiseModel | None = None,
    seed: int = 0,
    iterations: int = ITERATIONS,
) -> NoiseModel:
    """Find the transition matrix and the scale of the logits by maximum likelihood; `mixed`: and their mix and bias.

    logits: N x C, best of heads that were not trained on the same samples; labels: N. The search begins at `start`, or
    where each sample is of the class with the largest logit. Of more than `MANY` classes nothing is mixed.
    """
    classes = logits.shape[1]
    if start and classes > MANY:
        return start
    if len(labels) > (most := min(SAMPLES, ENTRIES // classes)):
        chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:most]
        logits, labels = logits[chosen], labels[chosen]
    if classes > MANY:
        return _fit_uniform_noise(logits, labels, iterations)
    eye = torch.eye(classes)
    spread = float(logits.std()) or 1.0
    z = logits / spread
    first = start.transition if start else counted_transition(logits.argmax(1), labels, classes)
    scale = spread if start is None else float(start.mix.diagonal().mean()) * spread
    shapes = [(1,), (classes, classes), *([(classes, classes), (classes,)] if mixed else [])]
    sizes = [int(np.prod(shape)) for shape in shapes]

    ridge = max(RIDGE[0], RIDGE[1] * (1 - float(first.diagonal().mean())) ** 2)

    def parts(vector: NDArray[np.float64]) -> list[Tensor]:
        pieces = torch.split(torch.from_numpy(vector).float(), sizes)
        found = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        return found if mixed else [*found, torch.zeros(classes, classes), torch.zeros(classes)]

    def objective(vector: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_scale, rows, change, bias = parts(vector)
        mix = log_scale.exp() * (eye + change)
        truth, transition = torch.softmax(z @ mix + bias, 1), torch.softmax(rows, 1)
        responsible, probable = posterior(truth, transition, labels)
        # The derivative by the logits: what each true class is found to be, less what it was expected to be.
        surprise = responsible - truth
        by_mix = z.t() @ surprise
        counts = torch.zeros(classes, classes).index_add_(0, labels, responsible).t()
        prior = AT_DIAGONAL * (eye + 0.5 / classes)
        by_rows = counts + prior - (counts + prior).sum(1, keepdim=True) * transition
        off = float(log_scale) - np.log(spread)
        width, weight = SCALE_PRIOR
        value = (
            probable.log().sum() + (prior * transition.clamp_min(_TINY).log()).sum() - weight * (off / width) ** 2 / 2
        )
        gradients = [(by_mix * mix).sum().view(1) - weight * off / width**2, by_rows.flatten()]
        if mixed:
            value = value - ridge / 2 * ((change**2).sum() + (bias**2).sum())
            gradients += [(by_mix * log_scale.exp() - ridge * change).flatten(), surprise.sum(0) - ridge * bias]
        return -float(value) / len(z), (-torch.cat(gradients) / len(z)).double().numpy()

    begin = np.concatenate([[np.log(scale)], first.clamp_min(_TINY).log().flatten().numpy(), np.zeros(sum(sizes[2:]))])
    log_scale, rows, change, bias = parts(_minimum(objective, begin, iterations))
    return NoiseModel(torch.softmax(rows, 1), log_scale.exp() * (eye + change) / spread, bias)


def _fit_uniform_noise(logits: Tensor, labels: Tensor, iterations: int) -> NoiseModel:
    """Find the one probability e of a wrong label, and the logits' scale."""
    classes = logits.shape[1]
    spread = float(logits.std()) or 1.0
    z = (logits - logits.max(1, keepdim=True).values).div_(spread)
    z_y = z.gather(1, labels[:, None])[:, 0]
    powers = torch.empty_like(z)
    width, weight = SCALE_PRIOR

    def sigmoid(odds: float) -> float:
        return 1 / (1 + float(np.exp(-np.clip(odds, -12, 12))))

    def objective(vector: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scale, e = float(np.exp(vector[0])), sigmoid(vector[1])
        total = torch.mul(z, scale, out=powers).exp_().sum(1)
        p_y, expected = (z_y * scale).exp() / total, powers.mul_(z).sum(1) / total
        other = e / (classes - 1)
        probable = (other + (1 - e - other) * p_y).clamp_min(_TINY)
        responsible = (other * expected + (1 - e - other) * p_y * z_y) / probable
        wrong = len(z) - float(((1 - e) * p_y / probable).sum())
        off = vector[0] - np.log(spread)
        prior = AT_DIAGONAL * (np.log1p(-e) + 0.5 * np.log(e))
        value = float(probable.log().sum()) + prior - weight * (off / width) ** 2 / 2
        by_scale = scale * float((responsible - expected).sum()) - weight * off / width**2
        by_odds = wrong + 0.5 * AT_DIAGONAL - e * (len(z) + 1.5 * AT_DIAGONAL)
        return -value / len(z), -np.array([by_scale, by_odds]) / len(z)

    e = min(0.9, max(0.01, float((z.argmax(1) != labels).double().mean())))
    log_scale, odds = _minimum(objective, np.array([np.log(spread), np.log(e / (1 - e))]), iterations)
    e = sigmoid(odds)
    transition = torch.full((classes, classes), e / (classes - 1)).fill_diagonal_(1 - e)
    return NoiseModel(transition, torch.tensor(float(np.exp(log_scale)) / spread), torch.zeros(classes))


def _minimum(
    objective: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
    begin: NDArray[np.float64],
    iterations: int,
) -> NDArray[np.float64]:
    from scipy.optimize import minimize

    found: NDArray[np.float64] = minimize(
        objective, begin, jac=True, method="L-BFGS-B", options={"maxiter": iterations}
    ).x
    return found


@dataclass(frozen=True)
class Interval:
    """An estimate, and between which values it lay in 19 of 20 draws of as many samples with replacement."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def bootstrap(
    model: NoiseModel, logits: Tensor, labels: Tensor, rate: float, *, seed: int = 0
) -> tuple[Interval, Interval]:
    """Return the noise `rate` and the transition matrix (C x C) with their intervals.

    In each draw T is found again, by expectation maximisation from the one that was found, with p(t | x) as it is: the
    intervals tell how much hangs on the sample at hand, not whether the model holds.
    """
    draws = np.random.Generator(np.random.PCG64(seed))
    total, classes = len(labels), logits.shape[1]
    kept = torch.from_numpy(draws.permutation(total)[:SAMPLES])
    truth, given = model.truth(logits[kept]), labels[kept]
    prior = AT_DIAGONAL * (torch.eye(classes) + 0.5 / classes)
    rates, matrices = [], []
    for _ in range(BOOTSTRAPS if classes <= MANY else 0):
        weight = torch.from_numpy(np.bincount(draws.integers(0, len(kept), len(kept)), minlength=len(kept))).float()
        transition = model.transition
        for _ in range(2):
            responsible, _probable = posterior(truth, transition, given)
            responsible *= weight[:, None]
            counts = torch.zeros(classes, classes).index_add_(0, given, responsible).t() + prior
            transition = counts / counts.sum(1, keepdim=True)
        rates.append(1 - float(responsible.gather(1, given[:, None]).sum()) / len(kept))
        matrices.append(transition.numpy())
    shrink = (len(kept) / total) ** 0.5
    return (
        _interval(np.array(rate), np.array(rates), shrink),
        _interval(model.transition.double().numpy(), np.array(matrices), shrink),
    )


def _interval(value: NDArray[np.float64], draws: NDArray[np.float64], shrink: float) -> Interval:
    if not len(draws):
        return Interval(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    middle = draws.mean(0)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return Interval(
        value, np.clip(value + shrink * (low - middle), 0, 1), np.clip(value + shrink * (high - middle), 0, 1)
    )
