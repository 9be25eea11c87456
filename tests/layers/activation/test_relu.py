"""ReLU."""

import torch
import torch.nn.functional as F
from layer_cases import Case, normal

from imae.layers.gradient_check import backward, build_layer
from imae.layers.layer import Saved

CASES = [
    Case('type: "ReLU"', [normal(4, 5)], lambda xs, blobs: [xs[0].clamp_min(0)]),
    Case(
        'type: "ReLU" relu_param { negative_slope: 0.25 }',
        [normal(4, 5)],
        lambda xs, blobs: [F.leaky_relu(xs[0], 0.25)],
    ),
    Case(
        'type: "ReLU" relu_param { negative_slope: -0.5 }',
        [normal(4, 5)],
        lambda xs, blobs: [torch.where(xs[0] > 0, xs[0], -0.5 * xs[0])],
    ),
]


def test_relu_gives_no_gradient_at_zero() -> None:
    for slope, expected in ((0, [[0, 0, 1]]), (0.5, [[0.5, 0.5, 1]])):
        layer = build_layer(f'type: "ReLU" relu_param {{ negative_slope: {slope} }}', [(1, 3)])
        saved: Saved = {}
        x = torch.tensor([[-1.0, 0.0, 2.0]])
        (dx,) = backward(layer, [x], layer.forward([x], saved), [torch.ones(1, 3)], saved, [True])
        assert dx is not None and dx.tolist() == expected
