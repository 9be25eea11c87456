"""How well a net fits training images: by labels with the noise that it was trained on, and by the intact ones."""

from dataclasses import dataclass

import torch

from imae.prototxt_like.errors import InputError
from imae.solvers.solver import Solver
from imae.solvers.training_samples import TrainingSamples


@dataclass
class TrainingAccuracy:
    """Fractions of the training images whose predicted class is the label."""

    corrupted: float  # against the labels trained on
    intact: float  # against the labels as they were before the noise


def training_accuracy(solver: Solver, *, held_out: int = 0) -> TrainingAccuracy:
    """Return the accuracies over the training images, without augmentation, in the TEST phase (the paper's Table 2).

    With `held_out` they are over the last so many images of the training split instead, which must not be among the
    `subset` trained on. The net must read an image set (Cifar10Data, DigitsData) and end in a loss. Raises InputError
    otherwise.
    """
    samples = TrainingSamples(solver, held_out)
    correct = torch.zeros(2, dtype=torch.int64, device=solver.device)
    for scores, label, intact in samples:
        if intact is None:
            raise InputError(f'net "{solver.net.name}": the labels before the noise are not known')
        correct += (scores.flatten(1).argmax(1) == torch.stack([label, intact])).sum(1)
    return TrainingAccuracy(*(correct / samples.count).tolist())
