"""BNLL."""

import torch
from layer_cases import Case, normal, run

from imae.layers.gradient_check import build_layer

CASES = [Case('type: "BNLL"', [normal(4, 5)], lambda xs, blobs: [xs[0].exp().log1p()])]


def test_bnll_overflows_nowhere() -> None:
    x = torch.tensor([-1000.0, -60.0, 60.0, 1000.0])
    tops, diffs = run(build_layer('type: "BNLL"', [(4,)], dtype=torch.float32), [x], [torch.ones(4)])
    torch.testing.assert_close(tops[0], torch.tensor([0.0, 0.0, 60.0, 1000.0]))
    torch.testing.assert_close(diffs[0], torch.tensor([0.0, 0.0, 1.0, 1.0]))
