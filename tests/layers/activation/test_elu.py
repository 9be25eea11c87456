"""ELU."""

import torch
from layer_cases import Case, normal


def elu(settings: str, alpha: float) -> Case:
    return Case(
        f'type: "ELU" elu_param {{ {settings} }}',
        [normal(4, 5)],
        lambda xs, blobs: [torch.where(xs[0] > 0, xs[0], alpha * (xs[0].exp() - 1))],
    )


CASES = [elu("", 1), elu("alpha: 0.5", 0.5), elu("alpha: 0", 0), elu("alpha: -0.5", -0.5)]
