"""Flatten."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_cases import Case, first_top, normal

SETTINGS = [
    ("", (2, 3, 4, 2), (2, 24)),
    ("axis: 0", (2, 3), (6,)),
    ("axis: -1", (2, 3), (2, 3)),
    ("axis: 1 end_axis: 2", (2, 3, 4, 2), (2, 12, 2)),
    ("axis: -3 end_axis: -2", (2, 3, 4, 2), (2, 12, 2)),
    ("axis: 2 end_axis: 1", (2, 3, 4), (2, 3, 1, 4)),
    ("axis: 0 end_axis: 0", (2,), (2,)),
]


def flatten(settings: str, shape: tuple[int, ...], top: tuple[int, ...]) -> Case:
    text = f'type: "Flatten" flatten_param {{ {settings} }}'
    return Case(text, [normal(*shape)], lambda xs, blobs: [xs[0].reshape(top)])


CASES = [flatten(*case) for case in SETTINGS]

MISTAKES = [
    ('type: "Flatten"', [(3,)], "axis 1 is out of range for a bottom of shape 3"),
    ('type: "Flatten" flatten_param { end_axis: 2 }', [(2, 3)], "axis 2 is out of range for a bottom of shape 2x3"),
    ('type: "Flatten" flatten_param { axis: 2 end_axis: 0 }', [(2, 3, 4)], "axis 2 comes after end_axis 0"),
    ('type: "Flatten" bottom: "x" top: "x"', [(2, 3)], 'does not work in place: "x" is a bottom and a top of it'),
]


@pytest.mark.parametrize("text", ['type: "Flatten"', 'type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }'])
def test_nothing_is_copied_of_what_lies_in_order(text: str) -> None:
    x = torch.randn(2, 3, 4)
    assert first_top(text, x).data_ptr() == x.data_ptr()


@given(st.data())
def test_the_axes_of_any_range_become_one(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    first = data.draw(st.integers(0, len(shape) - 1))
    last = data.draw(st.integers(max(0, first - 1), len(shape) - 1))
    axis, end_axis = (at - data.draw(st.sampled_from([0, len(shape)])) for at in (first, last))
    x = torch.arange(float(math.prod(shape))).view(shape)
    expected = x.reshape(*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])
    assert torch.equal(first_top(f'type: "Flatten" flatten_param {{ axis: {axis} end_axis: {end_axis} }}', x), expected)
