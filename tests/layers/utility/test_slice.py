"""Slice."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_cases import Case, normal

from imae.layers.gradient_check import build_layer


def cut(settings: str, axis: int, sizes: list[int], *shape: int) -> Case:
    tops = " ".join(f'top: "y{i}"' for i in range(len(sizes)))
    text = f'type: "Slice" {tops} slice_param {{ {settings} }}'
    return Case(text, [normal(*shape)], lambda xs, blobs: torch.split(xs[0], sizes, axis))


CASES = [
    cut("", 1, [2, 2, 2], 2, 6, 3),
    cut("", 1, [4], 2, 4),
    cut("axis: -1 slice_point: 1 slice_point: 3", 2, [1, 2, 2], 2, 3, 5),
    cut("slice_dim: 0 slice_point: 3", 0, [3, 1], 4, 2),
    cut("slice_point: 1", 1, [1, 3], 2, 4, 3, 2),
    cut("axis: 0", 0, [2, 2], 4),
]

TWO = 'type: "Slice" top: "a" top: "b"'
MISTAKES = [
    (f"{TWO} slice_param {{ axis: 1 slice_dim: 1 }}", [(2, 4)], "has both axis and slice_dim, it takes one of them"),
    (TWO, [(2, 3)], "cannot cut axis 1 of a bottom of shape 2x3 into 2 equal parts"),
    (f"{TWO} slice_param {{ slice_point: 4 }}", [(2, 3)], "cannot cut axis 1 of a bottom of shape 2x3 at [4]"),
    (f"{TWO} slice_param {{ slice_point: 3 }}", [(2, 3)], "cannot cut axis 1 of a bottom of shape 2x3 at [3]"),
    (f"{TWO} slice_param {{ slice_point: 1 }}", [(2, 1)], "cannot cut axis 1 of a bottom of shape 2x1 at [1]"),
    (f"{TWO} slice_param {{ slice_point: 0 }}", [(2, 3)], "the first than 0: [0]"),
    (
        'type: "Slice" top: "a" top: "b" top: "c" slice_param { slice_point: 2 slice_point: 2 }',
        [(2, 4)],
        "each slice_point must be larger than the one before",
    ),
    (
        f"{TWO} slice_param {{ slice_point: 1 slice_point: 2 }}",
        [(2, 3)],
        "needs 1 slice_point for its 2 tops, or none, not 2",
    ),
    (f"{TWO} slice_param {{ slice_dim: 4294967295 }}", [(2, 4)], "axis 4294967295 is out of range"),
    (f"{TWO} slice_param {{ axis: 2 }}", [(2, 4)], "axis 2 is out of range for a bottom of shape 2x4"),
]


@given(st.data())
def test_the_parts_at_any_points_put_together_are_the_bottom(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    points = sorted(data.draw(st.sets(st.integers(1, shape[axis] - 1)))) if shape[axis] > 1 else []
    said = " ".join(f"slice_point: {point}" for point in points)
    tops = " ".join(f'top: "y{i}"' for i in range(len(points) + 1))
    layer = build_layer(f'type: "Slice" {tops} slice_param {{ axis: {axis} {said} }}', [tuple(shape)])
    x = torch.arange(float(math.prod(shape))).view(shape)
    parts = layer.forward([x], {})
    assert all(torch.equal(part, x) for part, x in zip(parts, torch.tensor_split(x, points, axis), strict=True))
    assert torch.equal(layer.backward([x], parts, parts, {}, [True])[0], x)
