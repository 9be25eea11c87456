"""The paper's settings: the losses, T, nets and noise rates that it compares, and the solvers that train them."""

from typing import Any

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import SolverParameter
from imae.prototxt_like.text import did_you_mean

LOSSES = {
    "cce": "SoftmaxWithLoss",
    "mae": "SoftmaxWithMAELoss",
    "gce": "SoftmaxWithGCELoss",
    "imae": "SoftmaxWithIMAELoss",
}
"""The losses that are compared, and their layers' types. GCE (Zhang and Sabuncu 2018) is not in the paper's tables."""
T_INTACT, T_NOISY = 0.5, 8.0  # IMAE's T for intact and for corrupted labels, section 5.1
Q = 0.7  # GCE's q, its layer's default
DEPTHS = (20, 32, 56)  # of the ResNets for CIFAR-10, section 5.1
NOISE = (0, 20, 50, 80)  # percentages of training labels that are replaced at random, section 5.1.2


def loss_type(loss: str) -> str:
    """Return the layer type of a loss by its name in `LOSSES`; raises InputError for any other name."""
    if loss not in LOSSES:
        raise InputError(f'there is no loss "{loss}"; expected one of {", ".join(LOSSES)}{did_you_mean(loss, LOSSES)}')
    return LOSSES[loss]


def loss_settings(loss: str, noise: float) -> dict[str, Any]:
    """Return what a loss is given besides its name: for IMAE its T, by whether there is noise."""
    return {"T": T_NOISY if noise else T_INTACT} if loss == "imae" else {}


def cifar10_solver() -> SolverParameter:
    """Return the solver of section 5.1, which is that of He et al. 2016, without net and prefix."""
    return SolverParameter(
        test_iter=[100],
        test_interval=500,
        base_lr=0.1,
        lr_policy="multistep",
        gamma=0.1,
        stepvalue=[32000, 48000],
        max_iter=64000,
        momentum=0.9,
        weight_decay=1e-4,
        display=100,
        snapshot=10000,
        random_seed=1,
    )


def mars_solver() -> SolverParameter:
    """Return the solver of section 5.2, without net and prefix."""
    return SolverParameter(
        base_lr=0.01,
        lr_policy="step",
        gamma=0.5,
        stepsize=10000,
        max_iter=50000,
        momentum=0.9,
        weight_decay=5e-4,
        display=100,
        average_loss=100,
        snapshot=2500,
        random_seed=1,
    )


def digits_solver(iterations: int = 400, base_lr: float = 0.1) -> SolverParameter:
    """Return the solver of the digits, ours: the learning rate falls at 1/2 and 3/4; without net and prefix.

    Iterations and learning rate are what `python -m imae.experiments.demo_settings` picks for the demo.
    """
    return SolverParameter(
        test_iter=[5],
        test_interval=20,
        base_lr=base_lr,
        lr_policy="multistep",
        gamma=0.1,
        stepvalue=[iterations // 2, iterations * 3 // 4],
        max_iter=iterations,
        momentum=0.9,
        weight_decay=5e-3,
        display=20,
        random_seed=1,
    )
