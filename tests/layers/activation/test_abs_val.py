"""AbsVal."""

import torch
from layer_cases import Case, normal, run

from imae.layers.gradient_check import build_layer

CASES = [Case('type: "AbsVal"', [normal(*shape)], lambda xs, blobs: [xs[0].abs()]) for shape in ((4, 5), (3, 2, 2, 3))]


def test_abs_val_gives_no_gradient_at_zero() -> None:
    tops, diffs = run(build_layer('type: "AbsVal"', [(3,)]), [torch.tensor([-2.0, 0.0, 3.0])], [torch.ones(3)])
    assert tops[0].tolist() == [2, 0, 3]
    assert diffs[0] is not None and diffs[0].tolist() == [-1, 0, 1]
