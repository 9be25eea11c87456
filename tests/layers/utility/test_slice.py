"""Slice."""

import torch
from layer_cases import Case, normal


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
    cut("slice_point: 2", 1, [2, 0], 3, 2),
    cut("axis: 0", 0, [2, 2], 4),
]

TWO = 'type: "Slice" top: "a" top: "b"'
MISTAKES = [
    (f"{TWO} slice_param {{ axis: 1 slice_dim: 1 }}", [(2, 4)], "has both axis and slice_dim, it takes one of them"),
    (TWO, [(2, 3)], "cannot cut axis 1 of a bottom of shape 2x3 into 2 equal parts"),
    (f"{TWO} slice_param {{ slice_point: 4 }}", [(2, 3)], "cannot cut axis 1 of a bottom of shape 2x3 at [4]"),
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
