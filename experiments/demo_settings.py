"""Picks the demo's schedule, T and q by training labels held out, which are as noisy as the others.

    python -m imae.experiments.demo_settings [SEED ...]

First the schedule, one for all losses: that of the highest accuracy on the held-out labels, mean over losses and seeds.
Then, under it, T of IMAE and q of GCE. No intact label and no test image is looked at. Some minutes.
"""

import itertools
import statistics
import sys
from dataclasses import dataclass
from typing import Any

from imae.experiments.training_accuracy import training_accuracy
from imae.layers.data.digits_data import load_digits
from imae.nets.digits_net import digits_net
from imae.nets.memory import keep_freed_memory
from imae.nets.paper import LOSSES, T_NOISY, Q, digits_solver, loss_settings
from imae.solvers.solver import Solver

NOISE = 0.5
HELD_OUT = 297  # of the 1,297 training images, the last; half of their labels, too, were replaced at random
SEEDS = (1, 2)
ITERATIONS = (200, 400)  # more would make the demo long
RATES = (0.02, 0.05, 0.1)
PARAMETERS = {"imae": ("T", (4.0, T_NOISY, 16.0)), "gce": ("q", (0.5, Q, 0.9))}


@dataclass(frozen=True)
class Schedule:
    """How long, and with which learning rate at first."""

    iterations: int
    base_lr: float


def held_out_accuracy(loss: str, schedule: Schedule, seed: int, **loss_settings: Any) -> float:
    """Train on the images that are not held out; return the fraction of the held-out, noisy labels predicted."""
    net = digits_net(loss, noise_rate=NOISE, crops=True, **loss_settings)
    net.layer[0].digits_data_param.subset = len(load_digits(True)[0]) - HELD_OUT
    param = digits_solver(schedule.iterations, schedule.base_lr)
    param.net_param.CopyFrom(net)
    param.random_seed, param.display, param.test_initialization = seed, 0, False
    param.test_interval = schedule.iterations
    solver = Solver(param)
    solver.step(schedule.iterations)
    return training_accuracy(solver, held_out=HELD_OUT).corrupted


def main(seeds: tuple[int, ...]) -> None:
    """Print the accuracy, in %, of each candidate and what is picked."""
    keep_freed_memory()
    means = {}
    for schedule in itertools.starmap(Schedule, itertools.product(ITERATIONS, RATES)):
        every = {loss: _mean(loss, schedule, seeds, **loss_settings(loss, NOISE)) for loss in LOSSES}
        means[schedule] = statistics.fmean(every.values())
        print(schedule, f"{means[schedule]:.1f}", {loss: f"{mean:.1f}" for loss, mean in every.items()}, flush=True)
    schedule = max(means, key=means.__getitem__)
    print(f"picked: {schedule}")
    for loss, (name, values) in PARAMETERS.items():
        found = {value: _mean(loss, schedule, seeds, **{name: value}) for value in values}
        print(loss, {value: f"{mean:.1f}" for value, mean in found.items()}, flush=True)
        print(f"picked: {name} = {max(found, key=found.__getitem__):g}")


def _mean(loss: str, schedule: Schedule, seeds: tuple[int, ...], **settings: Any) -> float:
    return 100 * statistics.fmean(held_out_accuracy(loss, schedule, seed, **settings) for seed in seeds)


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or SEEDS)
