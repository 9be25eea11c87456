"""Eltwise."""

from collections.abc import Callable

import torch
from layer_cases import Case, Draw, Maker, normal
from torch import Tensor

from imae.layers.gradient_check import backward, build_layer
from imae.layers.layer import Saved


def largest(xs: list[Tensor]) -> Tensor:
    """The maximum with Caffe's choice at a tie: the second of the first two bottoms, the earlier one after that."""
    y = torch.where(xs[0] > xs[1], xs[0], xs[1])
    for x in xs[2:]:
        y = torch.where(x > y, x, y)
    return y


def eltwise(settings: str, bottoms: list[Maker], reference: Callable[[list[Tensor]], Tensor]) -> Case:
    return Case(f'type: "Eltwise" eltwise_param {{ {settings} }}', bottoms, lambda xs, blobs: [reference(xs)])


def tied(draw: Draw) -> Tensor:
    """Values of which a good part meet those of another tensor of the kind."""
    return draw.integers(-9, 9, 5, 9).double()


CASES = [
    eltwise("", [normal(2, 3)] * 2, lambda xs: xs[0] + xs[1]),
    eltwise("coeff: 1 coeff: -1", [normal(2, 3)] * 2, lambda xs: xs[0] - xs[1]),
    eltwise("coeff: 0.5 coeff: -2 coeff: 1", [normal(2, 3, 2)] * 3, lambda xs: xs[0] / 2 - 2 * xs[1] + xs[2]),
    eltwise("operation: PROD", [normal(2, 3)] * 2, lambda xs: xs[0] * xs[1]),
    eltwise(
        "operation: PROD",
        [normal(2, 3), normal(2, 3), lambda draw: torch.zeros(2, 3).double()],
        lambda xs: xs[0] * xs[1] * xs[2],
    ),
    eltwise("operation: MAX", [normal(2, 3)] * 2, largest),
    eltwise("operation: MAX", [tied] * 3, largest),
]

MISTAKES = [
    ('type: "Eltwise"', [(2, 3)], "takes 2 or more bottom blobs, the prototxt gives 1"),
    ('type: "Eltwise"', [(2, 3), (3, 2)], "its bottoms differ in shape: 2x3, 3x2"),
    (
        'type: "Eltwise" eltwise_param { coeff: 1 }',
        [(2,), (2,)],
        "needs a coeff for each of its 2 bottoms, or none, not 1",
    ),
    (
        'type: "Eltwise" eltwise_param { operation: PROD coeff: 1 coeff: 2 }',
        [(2,), (2,)],
        "coeff goes with SUM only",
    ),
]


def test_a_product_has_its_gradient_where_a_bottom_is_zero() -> None:
    layer = build_layer('type: "Eltwise" eltwise_param { operation: PROD stable_prod_grad: false }', [(2,), (2,)])
    saved: Saved = {}
    bottoms = [torch.tensor([0.0, 2.0]), torch.tensor([3.0, 0.0])]
    diffs = backward(layer, bottoms, layer.forward(bottoms, saved), [torch.ones(2)], saved, [True, True])
    assert torch.equal(torch.stack([diff for diff in diffs if diff is not None]), torch.tensor([[3.0, 0], [0, 2]]))


def test_eltwise_max_gives_a_tie_to_the_second_of_two_then_to_the_earlier() -> None:
    layer = build_layer('type: "Eltwise" eltwise_param { operation: MAX }', [(1, 3)] * 3)
    saved: Saved = {}
    x = [torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, 2.0, 3.0]])]
    (y,) = layer.forward(x, saved)
    assert y.tolist() == [[1, 2, 3]]
    diffs = backward(layer, x, [y], [torch.ones(1, 3)], saved, [True, True, True])
    assert [diff.tolist() for diff in diffs if diff is not None] == [[[0, 1, 0]], [[1, 0, 0]], [[0, 0, 1]]]
