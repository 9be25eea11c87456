"""Exp."""

import math

from layer_cases import Case, normal


def exp(settings: str, base: float = math.e, scale: float = 1, shift: float = 0) -> Case:
    return Case(
        f'type: "Exp" exp_param {{ {settings} }}',
        [normal(4, 5)],
        lambda xs, blobs: [base ** (shift + scale * xs[0])],
    )


CASES = [
    exp(""),
    exp("base: 2", base=2),
    exp("base: 0.5 scale: 0.5 shift: 0.75", base=0.5, scale=0.5, shift=0.75),
    exp("scale: -0.5 shift: 1", scale=-0.5, shift=1),
    exp("scale: 0 shift: 2", scale=0, shift=2),
    exp("base: 1", base=1),
]

MISTAKES = [
    ('type: "Exp" exp_param { base: 0 }', [(2, 3)], "base must be positive, or -1 for e, not 0"),
    ('type: "Exp" exp_param { base: -2 }', [(2, 3)], "base must be positive, or -1 for e, not -2"),
    ('type: "Exp" exp_param { shift: 100 }', [(2, 3)], "shift 100 are beyond what a float holds"),
]
