"""Threshold."""

import torch
from layer_cases import Case, first_top, normal


def threshold(settings: str, bound: float) -> Case:
    return Case(
        f'type: "Threshold" threshold_param {{ {settings} }}',
        [normal(4, 5)],
        lambda xs, blobs: [(xs[0] > bound).double()],
    )


CASES = [threshold("", 0), threshold("threshold: 0.5", 0.5)]


def test_the_threshold_itself_is_not_above_it() -> None:
    x = torch.tensor([-1.0, 0.5, 0.75])
    assert first_top('type: "Threshold" threshold_param { threshold: 0.5 }', x).tolist() == [0, 0, 1]
