"""From a head's logits to the probability that a label is wrong, with no label known to be right.

Each label is taken for a draw that depends on the sample's true class t, and on what the sample looks like:

    P(label = y | x) = sum over t of p(t | x) T_x[t, y],    p(. | x) = softmax(s(x)^-0.3 z(x) M + b),
    T_x[t, y] = T[t, y] p(y | x)^g / (sum over c of T[t, c] p(c | x)^g)

With g = 0 samples are mislabelled by the transition matrix T, whatever they look like; people rather err where a sample
looks like another class, g about 0.15. The logits z(x) of a linear head and their spread s(x) over the classes grow in
proportion to the features, how sure one can be more slowly: hence the power. T, g, and M and b, which mend the logits,
are those under which the labels are most probable. By Bayes' rule the true class is t with the probability
p(t | x) T_x[t, y] / P(y | x).

To name the true classes in another order changes none of the labels' probabilities: T is taken to be as near to the
identity as where the search begins, each sample of the class with the largest logit. Where half of a class's labels or
more are one other class, nothing in the labels tells which of the two is wrong.

Of more than `MANY` classes, whose C x C entries few labels say anything about, T has one number alone: a label is wrong
with probability e whatever the class, and every other class is as likely, T[t, y] = e / (C - 1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imae.layers.waiting import one_thread

SAMPLES, ITERATIONS = 10_000, 100
"""The model is found by so many samples, drawn at random, in at most so many iterations of L-BFGS,"""
MORE_SAMPLES, MORE_ITERATIONS = 50_000, 25
"""and from there by so many in so many more."""
AT_DIAGONAL = 1.0
"""Labels that the diagonal of T has in advance, for each class; half of it is spread over the row."""
FEW = 1500.0
"""With `mixed` the diagonal has this times a^2 / n times as many in advance, where that is more than once: n labels a
class, of which the head predicts the part a. The fewer it learnt from, the more its errors look like wrong labels."""
SCALE_PRIOR = (0.5, 20.0)
"""The logits' scale is expected within so large a factor (its logarithm's deviation), as if by so many samples."""
TEMPER = 0.3
"""The power of s."""
LIKENESS = (0.15, 0.2)
"""g is drawn towards the first, by (g - 0.15)^2 / 2 times the second a sample: enough where labels say little of it."""
RIDGE = (3.0, 400.0)
"""How strongly the logits are held to be mixed by nothing but a scale: at least, and times the square of the noise.

More samples than `SAMPLES` are held as much each: what M would make up for is then the model's error, not chance.
"""
MANY = 200
"""Classes up to which T has an entry for each two of them, and the logits are mixed."""
ENTRIES = 2**23
"""Logits at most that it is found by, and that are worked on at a time."""
BOOTSTRAPS = 50
_TINY = 1e-30


@dataclass(frozen=True)
class NoiseModel:
    """What was found from logits and labels."""

    transition: Tensor
    """T: C x C, row: true class, column: label."""
    mix: Tensor
    """M: C x C, or one scale."""
    bias: Tensor
    """b: C."""
    likeness: float = 0.0
    """g."""
    spread: float = 1.0
    """Of the logits over the classes, usually."""
    temper: float = 0.0
    """The power of their spread that a sample's logits are divided by: 0.3, or 0."""
    at_diagonal: float = AT_DIAGONAL
    """Labels that the diagonal of T had in advance, for each class."""

    def truth(self, logits: Tensor) -> Tensor:
        """Return log p(t | x) of logits (N x C): C x N, as a softmax over the first axis is 20 times as fast."""
        z = tempered(logits, self.spread, self.temper)
        z = z @ self.mix if self.mix.dim() else z * self.mix
        return torch.log_softmax((z + self.bias).t().contiguous(), 0)

    def posterior(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the probability of each true class, given sample and label: N x C."""
        return posterior(self.truth(logits), self.transition, self.likeness, labels)[0].t()

    def log_likelihood(self, logits: Tensor, labels: Tensor) -> float:
        """Return the mean log-probability of the labels."""
        return float(posterior(self.truth(logits), self.transition, self.likeness, labels)[1].mean())


def tempered(logits: Tensor, spread: float, temper: float) -> Tensor:
    """Return logits (N x C) divided by a power of each sample's spread over the classes, in units of the usual one."""
    if not temper:
        return logits
    z = logits - logits.mean(1, keepdim=True)
    return z.mul_(z.square().mean(1, keepdim=True).sqrt_().div_(spread).clamp_min_(1e-3).pow_(-temper))


def posterior(
    truth: Tensor, transition: Tensor, likeness: float, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the probability of each true class given the label (C x N), and the logarithm of that of the label (N).

    truth: log p(t | x), C x N. Then p(y | x)^g (C x N), and what each row of T_x is divided by (C x N, or 1).
    """
    alike = (likeness * truth).exp()
    rows = transition @ alike if likeness else torch.ones(())
    joint = truth.exp() / rows * transition.index_select(1, labels)  # [:, labels] takes four times as long
    total = joint.sum(0).clamp_min(_TINY)
    return joint / total, total.log() + likeness * truth.gather(0, labels[None])[0], alike, rows


def counted_transition(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return how often (fractions, C x C) samples of each predicted class have each label; no entry is 0."""
    table = torch.zeros(classes, classes).index_put_((predicted, labels), torch.ones(len(labels)), accumulate=True)
    table += 0.01 * len(labels) / classes**2 + AT_DIAGONAL * torch.eye(classes)
    return _share(table)


@one_thread()
def fit_noise_model(
    logits: Tensor,
    labels: Tensor,
    *,
    mixed: bool = False,
    seed: int = 0,
    iterations: int = ITERATIONS,
) -> NoiseModel:
    """Find T and the scale of the logits by maximum likelihood; `mixed`: by more samples, and M, b and g as well.

    logits: N x C, best of heads that were not trained on the same samples; labels: N. Of more than `MANY` classes
    nothing is mixed.
    """
    classes = logits.shape[1]
    mixed = mixed and classes <= MANY
    most = min(MORE_SAMPLES if mixed else SAMPLES, ENTRIES // classes)
    if len(labels) > most:
        chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:most]
        logits, labels = logits[chosen], labels[chosen]
    if classes > MANY:
        return _fit_uniform_noise(logits, labels, iterations)
    likelihood = _Likelihood(logits, labels, mixed)
    found = _minimum(partial(likelihood, blocks=1), likelihood.begin, iterations, likelihood.bounds)
    if len(labels) > SAMPLES:
        found = _minimum(likelihood, found, MORE_ITERATIONS, likelihood.bounds)
    return likelihood.model(found)


class _Likelihood:
    """How probable labels are, as a function of a vector: log scale, T's logits and, `mixed`, M's change, b and g."""

    def __init__(self, logits: Tensor, labels: Tensor, mixed: bool) -> None:
        classes = logits.shape[1]
        self.eye, self.mixed = torch.eye(classes), mixed
        self.spread, self.temper = float(logits.std(1, correction=0).square().mean().sqrt()) or 1.0, TEMPER * mixed
        z = tempered(logits, self.spread, self.temper).t() / self.spread
        given = torch.nn.functional.one_hot(labels, classes).float().t()
        parts = zip(*(torch.split(each, SAMPLES, -1) for each in (z, given, labels)), strict=True)
        self.blocks = [(z.contiguous(), given.contiguous(), labels) for z, given, labels in parts]
        first = counted_transition(logits.argmax(1), labels, classes)
        self.ridge = max(RIDGE[0], RIDGE[1] * (1 - float(first.diagonal().mean())) ** 2)
        scarce = FEW * float(first.diagonal().mean()) ** 2 * classes / len(labels)
        self.at_diagonal = AT_DIAGONAL * max(1.0, scarce) if mixed else AT_DIAGONAL
        self.prior = _prior(classes, self.at_diagonal)
        shapes = [(1,), (classes, classes), *([(classes, classes), (classes,), (1,)] if mixed else [])]
        self.shapes, self.sizes = shapes, [int(np.prod(shape)) for shape in shapes]
        rows = first.clamp_min(_TINY).log().flatten().numpy()
        self.begin = np.concatenate([[np.log(self.spread)], rows, np.zeros(sum(self.sizes[2:]))])
        free: tuple[float | None, float | None] = (None, None)
        self.bounds = [free] * (len(self.begin) - 1) + [(0.0, None) if mixed else free]

    def parts(self, vector: NDArray[np.float64]) -> list[Tensor]:
        """Return log scale, T's logits, M's change, b and g."""
        pieces = torch.split(torch.from_numpy(vector).float(), self.sizes)
        found = [piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]
        return found if self.mixed else [*found, torch.zeros_like(self.eye), torch.zeros(len(self.eye)), torch.zeros(1)]

    def model(self, vector: NDArray[np.float64]) -> NoiseModel:
        """Return the model with these numbers."""
        log_scale, rows, change, bias, likeness = self.parts(vector)
        mix = log_scale.exp() * (self.eye + change) / self.spread
        known = self.spread, self.temper, self.at_diagonal
        return NoiseModel(torch.softmax(rows, 1), mix, bias, float(likeness), *known)

    def __call__(self, vector: NDArray[np.float64], blocks: int | None = None) -> tuple[float, NDArray[np.float64]]:
        """Return the mean log-probability of the labels of the first `blocks`, negative, with priors; its gradient."""
        log_scale, rows, change, bias, likeness = self.parts(vector)
        mix, g, transition = log_scale.exp() * (self.eye + change), float(likeness), torch.softmax(rows, 1)
        value, by_mix, by_rows = 0.0, torch.zeros_like(self.eye), torch.zeros_like(self.eye)
        by_bias, by_g, count = torch.zeros(len(self.eye)), 0.0, 0
        for z, given, labels in self.blocks[:blocks]:
            truth = torch.log_softmax(torch.addmm(bias[:, None], mix.t(), z), 0)
            responsible, probable, alike, sums = posterior(truth, transition, g, labels)
            by_row = responsible / sums
            # The derivative by the logits: what each true class is found to be, less what it was expected to be.
            surprise = responsible - truth.exp()
            if self.mixed:
                # The label, less what it was expected to be, by what the true class was found to be.
                unforeseen = torch.addcmul(given, alike, transition.t() @ by_row, value=-1)
                surprise.add_(unforeseen, alpha=g)
                by_g += float(torch.dot(unforeseen.flatten(), truth.flatten()))
            value, count = value + float(probable.sum()), count + len(labels)
            by_rows += responsible @ given.t() - transition * (by_row @ alike.t())
            by_mix += z @ surprise.t()
            by_bias += surprise.sum(1)
        value += float((self.prior * transition.clamp_min(_TINY).log()).sum())
        by_rows += self.prior - self.prior.sum(1, keepdim=True) * transition
        off, (width, weight) = float(log_scale) - np.log(self.spread), SCALE_PRIOR
        value -= weight * (off / width) ** 2 / 2
        gradients = [(by_mix * mix).sum().view(1) - weight * off / width**2, by_rows.flatten()]
        if self.mixed:
            ridge, (usual, strength) = self.ridge * max(1, count / SAMPLES), LIKENESS
            value -= ridge / 2 * float((change**2).sum() + (bias**2).sum()) + strength * count * (g - usual) ** 2 / 2
            gradients += [(by_mix * log_scale.exp() - ridge * change).flatten(), by_bias - ridge * bias]
            gradients += [torch.tensor([by_g - strength * count * (g - usual)])]
        return -value / count, (-torch.cat(gradients) / count).double().numpy()


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
    bounds: Sequence[tuple[float | None, float | None]] | None = None,
) -> NDArray[np.float64]:
    from scipy.optimize import minimize

    found: NDArray[np.float64] = minimize(
        objective, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": iterations}
    ).x
    return found


@dataclass(frozen=True)
class Interval:
    """An estimate, and between which values it lay in 19 of 20 draws of as many samples with replacement."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@one_thread()
def bootstrap(
    model: NoiseModel, logits: Tensor, labels: Tensor, rate: float, *, seed: int = 0
) -> tuple[Interval, Interval]:
    """Return the noise `rate` and how often samples of each true class have each label (C x C), with their intervals.

    In each draw T is found again, by expectation maximisation from the one that was found, with p(t | x) as it is: the
    intervals tell how much hangs on the sample at hand, not whether the model holds.
    """
    draws = np.random.Generator(np.random.PCG64(seed))
    total, classes = len(labels), logits.shape[1]
    kept = torch.from_numpy(draws.permutation(total)[:SAMPLES])
    rates, matrices, value = [], [], model.transition
    if classes <= MANY:
        truth, labels = model.truth(logits[kept]), labels[kept]
        prior = _prior(classes, model.at_diagonal)
        given = torch.nn.functional.one_hot(labels, classes).float()
        value = _share(posterior(truth, model.transition, model.likeness, labels)[0] @ given + prior)
        for _ in range(BOOTSTRAPS):
            weight = torch.from_numpy(np.bincount(draws.integers(0, len(kept), len(kept)), minlength=len(kept))).float()
            transition = model.transition
            for _ in range(2):
                responsible, _probable, alike, rows = posterior(truth, transition, model.likeness, labels)
                responsible *= weight
                counts = responsible @ given + prior
                transition = _share(counts / ((responsible / rows) @ alike.t() + prior.sum(1, keepdim=True)))
            rates.append(1 - float(responsible.gather(0, labels[None]).sum()) / len(kept))
            matrices.append(_share(counts).numpy())
    shrink = (len(kept) / total) ** 0.5
    return (
        _interval(np.array(rate), np.array(rates), shrink),
        _interval(value.double().numpy(), np.array(matrices), shrink),
    )


def _prior(classes: int, at_diagonal: float) -> Tensor:
    """Labels that each entry of T has in advance."""
    return at_diagonal * torch.eye(classes) + 0.5 * AT_DIAGONAL / classes


def _share(counts: Tensor) -> Tensor:
    return counts / counts.sum(1, keepdim=True)


def _interval(value: NDArray[np.float64], draws: NDArray[np.float64], shrink: float) -> Interval:
    if not len(draws):
        return Interval(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    middle = draws.mean(0)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return Interval(
        value, np.clip(value + shrink * (low - middle), 0, 1), np.clip(value + shrink * (high - middle), 0, 1)
    )
