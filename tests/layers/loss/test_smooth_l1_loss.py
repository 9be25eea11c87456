"""SmoothL1Loss and SmoothL1LossOHEM, number by number as Fast R-CNN's and R-FCN's Caffe sum them."""

import pytest
import torch
from layer_cases import Case, normal
from torch import Tensor

from imae.layers.gradient_check import build_layer

FOUR = (2, 3, 2, 2)


def summed(xs: list[Tensor], by: float, sigma: float = 1, ohem: bool = False) -> list[Tensor]:
    """The forks' loops; a second top for R-FCN's."""
    shape = (*xs[0].shape, 1, 1)[:4]
    a, b, *weights = (x.reshape(shape) for x in xs)
    total, positions = a.new_zeros(()), a.new_zeros(shape[0], 1, *shape[2:])
    for n in range(shape[0]):
        for c in range(shape[1]):
            for h in range(shape[2]):
                for w in range(shape[3]):
                    at = n, c, h, w
                    d = a[at] - b[at]
                    if weights:
                        d = weights[0][at] * d
                    size = abs(d)
                    value = 0.5 * d * d * sigma**2 if size < 1 / sigma**2 else size - 0.5 / sigma**2
                    if not ohem and weights:
                        value = weights[1][at] * value
                    total = total + value
                    positions[n, 0, h, w] += value.detach()
    return [total / by, positions][: 1 + ohem]


def case(by: float, shape: tuple[int, ...] = FOUR, bottoms: int = 2, sigma: float = 1, more: str = "") -> Case:
    text = f'type: "SmoothL1Loss" smooth_l1_loss_param {{ sigma: {sigma} }} {more}'
    return Case(text, [normal(*shape)] * bottoms, lambda xs, blobs: summed(xs, by, sigma))


def with_positions(by: float, shape: tuple[int, ...] = FOUR, bottoms: int = 2, param: str = "") -> Case:
    text = f'type: "SmoothL1LossOHEM" top: "t" top: "each" loss_param {{ {param} }}'
    return Case(text, [normal(*shape)] * bottoms, lambda xs, blobs: summed(xs, by, ohem=True))


CASES = [
    case(2),
    case(2, bottoms=4, sigma=3),
    case(5, (5, 8), 4, 0.7),
    case(1, bottoms=4, more="loss_param { normalization: NONE }"),
    case(2, more="loss_param { normalization: FULL }"),  # which the forks do not read
    with_positions(8),
    with_positions(8, bottoms=3, param="normalization: FULL"),
    with_positions(4, (4, 8), 3),
    with_positions(2, bottoms=3, param="normalize: false"),
    with_positions(32, bottoms=3, param="normalization: PRE_FIXED pre_fixed_normalizer: 32"),
    with_positions(1, param="normalization: PRE_FIXED pre_fixed_normalizer: 0.5"),
]
MISTAKES = [
    ('type: "SmoothL1Loss"', [FOUR] * 3, "takes inside and outside weights together"),
    ('type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 0 }', [FOUR] * 2, "sigma is 0, expected from 1e-6 to 1e6"),
    ('type: "SmoothL1Loss"', [(2, 12), (2, 3, 2, 2)], "needs bottoms of one shape, found 2x12 and 2x3x2x2"),
    ('type: "SmoothL1Loss"', [(2, 12), (2, 12), (2, 12), (2, 6)], "needs bottoms of one shape, found 2x12 and 2x6"),
    ('type: "SmoothL1Loss"', [(2, 3), (3, 2)], "needs bottoms of the same batch size"),
]


@pytest.mark.parametrize("kind", ["SmoothL1Loss", "SmoothL1LossOHEM"])
def test_axes_of_1_at_the_end_are_no_difference(kind: str) -> None:
    """R-FCN pools predictions to R x 8 x 1 x 1, of which the targets are R x 8."""
    a, b = torch.tensor([[0.5, 4.0]]), torch.tensor([[1.0, 1.0]])
    layer = build_layer(f'type: "{kind}"', [(1, 2, 1, 1), (1, 2)])
    assert float(layer.forward([a.view(1, 2, 1, 1), b], {})[0]) == 0.125 + 2.5
