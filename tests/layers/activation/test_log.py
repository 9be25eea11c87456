"""Log."""

import math

import torch
from layer_cases import Case


def log(settings: str, base: float = math.e, scale: float = 1, shift: float = 0) -> Case:
    """x from 0.5 to 1.5."""
    return Case(
        f'type: "Log" log_param {{ {settings} }}',
        [lambda draw: draw.uniform(4, 5) + 0.5],
        lambda xs, blobs: [torch.log(shift + scale * xs[0]) / math.log(base)],
    )


CASES = [
    log(""),
    log("base: 10", base=10),
    log("base: 0.5 scale: 2 shift: 0.75", base=0.5, scale=2, shift=0.75),
    log("scale: -0.5 shift: 3", scale=-0.5, shift=3),
    log("scale: 0 shift: 2", scale=0, shift=2),
]

MISTAKES = [
    ('type: "Log" log_param { base: 0 }', [(2, 3)], "base must be positive, or -1 for e, not 0"),
    ('type: "Log" log_param { base: 1 }', [(2, 3)], "there is no logarithm to base 1"),
]
