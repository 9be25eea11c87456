"""LSTMUnit."""

import torch
from layer_cases import Case, Draw, normal, run
from torch import Tensor

from imae.layers.gradient_check import build_layer


def unit(c_prev: Tensor, gates: Tensor, cont: Tensor) -> list[Tensor]:
    """Caffe's step; gates in its order i, f, o, g."""
    i, f, o, g = gates.chunk(4, 2)
    c = cont[:, :, None] * f.sigmoid() * c_prev + i.sigmoid() * g.tanh()
    return [c, o.sigmoid() * c.tanh()]


def begins(*shape: int) -> object:
    """cont: 0 or 1."""
    return lambda draw: draw.integers(0, 2, *shape).double()


CASES = [
    Case(
        'type: "LSTMUnit" top: "c" top: "h"', [normal(1, 4, 3), normal(1, 4, 12), begins(1, 4)], lambda xs, _: unit(*xs)
    ),
    Case(
        'type: "LSTMUnit" top: "c" top: "h"',
        [normal(1, 2, 1), normal(1, 2, 4), lambda draw: draw.uniform(1, 2)],
        lambda xs, _: unit(*xs),
    ),
]


MISTAKES = [
    ('type: "LSTMUnit" top: "c" top: "h"', [(2, 2, 3), (1, 2, 12), (1, 2)], "needs c_prev of 1 x N x D, found 2x2x3"),
    (
        'type: "LSTMUnit" top: "c" top: "h"',
        [(1, 2, 3), (1, 2, 9), (1, 2)],
        "it needs gates of 1x2x12 and cont of 1x2, found 1x2x9 and 1x2",
    ),
    ('type: "LSTMUnit" top: "c"', [(1, 2, 3), (1, 2, 12), (1, 2)], "takes 2 top blobs, the prototxt gives 1"),
]


def test_a_cont_between_0_and_1_has_the_gradient_of_caffes_gpu_kernels() -> None:
    """d f = cont c_prev sigmoid', where its CPU code takes cont sigmoid for the sigmoid."""
    c_prev, gates, cont = Draw(1).normal(1, 1, 1), Draw(2).normal(1, 1, 4), torch.full((1, 1), 0.3).double()
    layer = build_layer('type: "LSTMUnit" top: "c" top: "h"', [c_prev.shape, gates.shape, cont.shape])
    _, (_, dgates, dcont) = run(layer, [c_prev, gates, cont], [torch.ones(1, 1, 1), torch.zeros(1, 1, 1)])
    f = gates[0, 0, 1].sigmoid()
    assert dgates is not None and dcont is None
    torch.testing.assert_close(dgates[0, 0, 1], 0.3 * c_prev[0, 0, 0] * f * (1 - f))
