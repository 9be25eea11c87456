"""Caffe's learning-rate policies: the rate as a function of the iteration."""

import math
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate

import numpy as np

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.known_names import OTHER_NAMES
from imae.prototxt_like.schema import SolverParameter
from imae.prototxt_like.text import did_you_mean


def _power(base: float, exponent: float) -> float:
    """base^exponent of a base that is not negative, infinite where it overflows, as C++'s pow."""
    try:
        return float(base**exponent)
    except (OverflowError, ZeroDivisionError):
        return math.inf


def _sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), 0 where the exponential overflows."""
    try:
        return 1 / (1 + math.exp(-x))
    except OverflowError:
        return 0.0


POLICIES: dict[str, Callable[[SolverParameter, int], float]] = {
    "fixed": lambda p, t: 1.0,
    "step": lambda p, t: _power(p.gamma, t // p.stepsize),
    "exp": lambda p, t: _power(p.gamma, t),
    "inv": lambda p, t: _power(1 + p.gamma * t, -p.power),
    "multistep": lambda p, t: _power(p.gamma, current_step(p, t)),
    "poly": lambda p, t: _power(1 - t / p.max_iter if t < p.max_iter else 0.0, p.power),
    "sigmoid": lambda p, t: _sigmoid(p.gamma * (t - p.stepsize)),
}
"""By `lr_policy`, what base_lr is multiplied by at iteration t."""


def learning_rate(param: SolverParameter, iteration: int) -> float:
    """Return the learning rate at `iteration`: as Caffe's a float32, which may become 0 or infinite."""
    if not param.base_lr:
        return 0.0
    with np.errstate(over="ignore"):
        return float(np.float32(param.base_lr * POLICIES[param.lr_policy](param, iteration)))


def current_step(param: SolverParameter, iteration: int) -> int:
    """Return how many steps of the `step` or `multistep` policy `iteration` has had.

    A solverstate keeps that of the last update, as Caffe looks for the next step before each.
    """
    if param.lr_policy == "step":
        return int(iteration // param.stepsize)
    if param.lr_policy != "multistep":
        return 0
    # Caffe takes one step an iteration at most, and the stepvalues in their order: of two alike the second comes late.
    taken = accumulate(param.stepvalue, lambda last, value: max(last + 1, value))
    return bisect_right(list(taken), iteration)


def check_policy(param: SolverParameter) -> None:
    """Raise InputError for an unknown `lr_policy`, or one whose settings are missing or out of range."""
    if param.lr_policy not in POLICIES:
        hint = did_you_mean(param.lr_policy, POLICIES, OTHER_NAMES) or f"; known are {', '.join(sorted(POLICIES))}"
        raise InputError(f'solver: unknown lr_policy "{param.lr_policy}"{hint}')
    if param.lr_policy in ("step", "sigmoid") and param.stepsize <= 0:
        raise InputError(f'solver: lr_policy "{param.lr_policy}" needs a stepsize above 0')
    if param.lr_policy not in ("fixed", "poly", "sigmoid") and param.gamma < 0:
        raise InputError(f"solver: gamma must not be negative, not {param.gamma:g}")
