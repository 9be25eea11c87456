"""Reduction."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_cases import Case, first_top, normal
from torch import Tensor

OPERATIONS = {
    "SUM": lambda x: x.sum(-1),
    "ASUM": lambda x: x.abs().sum(-1),
    "SUMSQ": lambda x: x.square().sum(-1),
    "MEAN": lambda x: x.mean(-1),
}


def reduction(operation: str, settings: str, axis: int, coeff: float, *shape: int) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        return [coeff * OPERATIONS[operation](xs[0].reshape(*shape[:axis], math.prod(shape[axis:])))]

    text = f'type: "Reduction" reduction_param {{ operation: {operation} {settings} }}'
    return Case(text, [normal(*shape)], reference)


CASES = [
    reduction(operation, *case)
    for operation in OPERATIONS
    for case in (
        ("", 0, 1.0, 2, 3),
        ("axis: 1 coeff: -1.5", 1, -1.5, 2, 3, 2),
        ("axis: -1 coeff: 0.25", 3, 0.25, 2, 3, 2, 2),
    )
]

MISTAKES = [
    ('type: "Reduction" reduction_param { axis: 2 }', [(2, 3)], "axis 2 is out of range for a bottom of shape 2x3"),
    ('type: "Reduction"', [()], "axis 0 is out of range for a bottom of shape scalar"),
]


def test_the_mean_of_nothing_is_no_number() -> None:
    assert first_top('type: "Reduction" reduction_param { operation: MEAN axis: 1 }', torch.ones(2, 0)).isnan().all()
    assert first_top('type: "Reduction" reduction_param { axis: 1 }', torch.ones(2, 0)).tolist() == [0, 0]


@given(st.data())
def test_all_axes_from_any_one_on_are_reduced(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    operation, coeff = data.draw(st.sampled_from([*OPERATIONS])), data.draw(st.sampled_from([1.0, -0.5, 0.0, 3.0]))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = shape[: axis % len(shape)]
    text = f'type: "Reduction" reduction_param {{ operation: {operation} axis: {axis} coeff: {coeff} }}'
    torch.testing.assert_close(first_top(text, x), coeff * OPERATIONS[operation](x.reshape(*kept, -1)))
