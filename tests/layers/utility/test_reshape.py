"""Reshape."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_cases import Case, first_top, normal

SETTINGS = [
    ("shape { dim: 0 dim: -1 }", (2, 3, 4), (2, 12)),
    ("shape { dim: 0 dim: 4 dim: 3 }", (2, 3, 4), (2, 4, 3)),
    ("shape { dim: 2 dim: -1 } axis: 1 num_axes: 2", (2, 4, 3, 2), (2, 2, 6, 2)),
    ("shape { dim: -1 } axis: 1", (2, 4, 3, 2), (2, 24)),
    ("shape { dim: 1 } axis: 1 num_axes: 0", (2, 3), (2, 1, 3)),
    ("shape { dim: 1 dim: 1 } axis: -1 num_axes: 0", (2, 3), (2, 3, 1, 1)),
    ("shape { dim: -1 dim: 0 } axis: -3", (2, 3, 4), (2, 3, 4)),
    ("axis: 1", (2, 1, 1), (2,)),
    ("", (1, 1), ()),
    ("shape { dim: 3 dim: 2 dim: 1 }", (6,), (3, 2, 1)),
]


def reshaped(settings: str, shape: tuple[int, ...], top: tuple[int, ...]) -> Case:
    text = f'type: "Reshape" reshape_param {{ {settings} }}'
    return Case(text, [normal(*shape)], lambda xs, blobs: [xs[0].reshape(top)])


CASES = [reshaped(*case) for case in SETTINGS]


def mistake(settings: str, shape: tuple[int, ...], message: str) -> tuple[str, list[tuple[int, ...]], str]:
    return f'type: "Reshape" reshape_param {{ {settings} }}', [shape], message


MISTAKES = [
    mistake("shape { dim: -1 dim: -1 }", (2, 3), "gives -1 more than once"),
    mistake("shape { dim: 4 dim: -1 }", (2, 3), "no size for -1 follows: the other sizes make 4 of the 6 numbers"),
    mistake("shape { dim: 0 dim: -1 }", (0, 3), "no size for -1 follows: the other sizes make 0 of the 0 numbers"),
    mistake("shape { dim: 4 }", (2, 3), "cannot make a bottom of 2x3 a top of 4: 6 numbers are not 4"),
    mistake("shape { dim: 2 dim: 3 dim: 0 }", (2, 3), "a size of 0 copies axis 2, which a bottom of shape 2x3 has not"),
    mistake("axis: 3", (2, 3), "axis 3 is out of range for a bottom of shape 2x3"),
    mistake("axis: -4", (2, 3), "axis -4 is out of range for a bottom of shape 2x3"),
    mistake("axis: 1 num_axes: 2", (2, 3), "num_axes 2 from axis 1 on is out of range for a bottom of shape 2x3"),
    mistake("num_axes: -2", (2, 3), "num_axes -2 from axis 0 on is out of range"),
    mistake(f"shape {{ {'dim: 1 ' * 31} }} num_axes: 0", (2, 3), "33 axes, more than the 32 of a blob"),
    ('type: "Reshape" bottom: "x" top: "x"', [(1,)], 'does not work in place: "x" is a bottom and a top of it'),
]


@st.composite
def cuts(draw: st.DrawFn) -> tuple[list[int], int, int, list[int], list[int]]:
    """A bottom's shape, the range of axes that is replaced, by what, as sizes and as a prototxt may say these."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    first = draw(st.integers(0, len(shape)))
    count = draw(st.integers(0, len(shape) - first))
    new, left = [], math.prod(shape[first : first + count])
    while left > 1 and draw(st.booleans()):
        new.append(draw(st.sampled_from([size for size in range(1, left + 1) if left % size == 0])))
        left //= new[-1]
    new.append(left)
    said = list(new)
    for i, size in enumerate(new):
        if first + i < len(shape) and shape[first + i] == size and draw(st.booleans()):
            said[i] = 0
    if draw(st.booleans()):
        said[draw(st.integers(0, len(said) - 1))] = -1
    return shape, first, count, new, said


@given(cuts(), st.booleans())
def test_a_range_of_axes_becomes_the_given_ones(
    cut: tuple[list[int], int, int, list[int], list[int]], from_the_end: bool
) -> None:
    shape, first, count, new, said = cut
    axis = first - len(shape) - 1 if from_the_end else first
    dims = " ".join(f"dim: {size}" for size in said)
    text = f'type: "Reshape" reshape_param {{ shape {{ {dims} }} axis: {axis} num_axes: {count} }}'
    x = torch.arange(float(math.prod(shape))).view(shape)
    assert torch.equal(first_top(text, x), x.reshape(*shape[:first], *new, *shape[first + count :]))
