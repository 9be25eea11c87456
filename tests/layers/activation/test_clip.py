"""Clip."""

import pytest
import torch
from layer_cases import Case, normal, run

from imae.layers.gradient_check import build_layer
from imae.prototxt_like.errors import InputError


def clip(low: float, high: float) -> Case:
    return Case(
        f'type: "Clip" clip_param {{ min: {low} max: {high} }}',
        [normal(4, 5)],
        lambda xs, blobs: [torch.where(xs[0] <= high, torch.where(xs[0] >= low, xs[0], low), high)],
    )


CASES = [clip(-0.5, 0.75), clip(0.25, 0.5), clip(-100, 100)]


def test_clip_without_bounds_is_an_error() -> None:
    with pytest.raises(InputError, match=r'^layer "mine" \(Clip\): needs a clip_param with min and max$'):
        build_layer('name: "mine" type: "Clip"', [(2, 3)])


def test_clip_passes_the_gradient_at_its_bounds_and_may_have_none() -> None:
    for bounds, y, dx in (
        ("min: -1 max: 2", [-1, -1, 0, 2, 2], [0, 1, 1, 1, 0]),
        ("min: -inf max: 2", [-5, -1, 0, 2, 2], [1, 1, 1, 1, 0]),
        ("min: 1 max: -1", [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]),
    ):
        layer = build_layer(f'type: "Clip" clip_param {{ {bounds} }}', [(5,)])
        tops, diffs = run(layer, [torch.tensor([-5.0, -1.0, 0.0, 2.0, 3.0])], [torch.ones(5)])
        assert tops[0].tolist() == y
        assert diffs[0] is not None and diffs[0].tolist() == dx
