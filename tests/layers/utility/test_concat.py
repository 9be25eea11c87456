"""Concat."""

import torch
from layer_cases import Case, normal
from torch import Tensor


def along(axis: int) -> object:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        return [torch.cat(xs, axis)]

    return reference


CASES = [
    Case('type: "Concat"', [normal(2, 3, 4), normal(2, 1, 4), normal(2, 2, 4)], along(1)),
    Case('type: "Concat"', [normal(2, 3, 4, 2), normal(2, 1, 4, 2)], along(1)),
    Case('type: "Concat" concat_param { axis: -1 }', [normal(2, 3), normal(2, 1)], along(1)),
    Case('type: "Concat" concat_param { concat_dim: 0 }', [normal(2, 3), normal(2, 3)], along(0)),
    Case('type: "Concat"', [normal(2, 3)], along(1)),
]

MISTAKES = [
    ('type: "Concat"', [(2, 3, 4), (2, 3, 5)], "its bottoms differ in more than axis 1: 2x3x4, 2x3x5"),
    ('type: "Concat"', [(2, 3), (2, 3, 1)], "its bottoms differ in more than axis 1: 2x3, 2x3x1"),
    ('type: "Concat" concat_param { axis: 2 }', [(2, 3)], "axis 2 is out of range for a bottom of shape 2x3"),
    ('type: "Concat" concat_param { axis: 1 concat_dim: 1 }', [(2, 3)], "both axis and concat_dim"),
]
