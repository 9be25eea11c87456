"""LSTM."""

import pytest
import torch
from recurrent.sequences import (
    assert_an_encoders_hidden_values_begin_a_decoder,
    assert_no_gradient_goes_from_pass_to_pass,
    assert_other_numbers_of_sequences_begin_anew,
    assert_two_passes_are_one_of_twice_the_length,
    cases,
)
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.layers.layer import Saved


def step(inputs: Tensor, before: list[Tensor], blobs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """h and c, from gates in Caffe's order i, f, o, g."""
    i, f, o, g = inputs.chunk(4, 1)
    c = f.sigmoid() * before[1] + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return h, [h, c]


CASES = cases("LSTM", step, ("h", "c"))


MISTAKES = [
    ('type: "LSTM"', [(2, 3, 4), (2, 3)], "num_output is missing or 0"),
    (
        'type: "LSTM" recurrent_param { num_output: 2 }',
        [(2, 3), (2, 3)],
        "needs at least 1 input from axis 2 on, x is 2x3",
    ),
    (
        'type: "LSTM" recurrent_param { num_output: 2 }',
        [(2, 3, 4), (3, 2)],
        "cont must be 2x3, as x is 2x3x4, found 3x2",
    ),
    (
        'type: "LSTM" recurrent_param { num_output: 2 }',
        [(2, 3, 4), (2, 3), (2, 4)],
        "x_static must have 3 sequences of 4 inputs, is 2x4",
    ),
    (
        'type: "LSTM" recurrent_param { num_output: 2 expose_hidden: true }',
        [(2, 3, 4), (2, 3)],
        "takes 4 to 5 bottom blobs, the prototxt gives 2",
    ),
    (
        'type: "LSTM" top: "y" top: "h" top: "c" recurrent_param { num_output: 2 expose_hidden: true }',
        [(2, 3, 4), (2, 3), (1, 3, 2), (1, 3, 1)],
        "c_0 must be 1x3x2, found 1x3x1",
    ),
]


def test_two_passes_are_one_of_twice_the_length() -> None:
    assert_two_passes_are_one_of_twice_the_length("LSTM")


def test_no_gradient_goes_from_pass_to_pass() -> None:
    assert_no_gradient_goes_from_pass_to_pass("LSTM")


def test_other_numbers_of_sequences_begin_anew() -> None:
    assert_other_numbers_of_sequences_begin_anew("LSTM")


def test_an_encoders_hidden_values_begin_a_decoder() -> None:
    assert_an_encoders_hidden_values_begin_a_decoder("LSTM", ("h", "c"))


@pytest.mark.parametrize("exposed", [False, True])
def test_onednns_kernels_give_what_our_own_steps_give(exposed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = 'type: "LSTM" recurrent_param { num_output: 5 '
    settings += 'expose_hidden: true } top: "y" top: "h" top: "c"' if exposed else "}"
    weights = [torch.randn(20, 8), torch.randn(20), torch.randn(20, 5)]
    start = [torch.randn(1, 3, 5), torch.randn(1, 3, 5)] if exposed else []
    x, cont, dy = torch.randn(2, 40, 3, 4, 2), torch.ones(2, 40, 3), torch.randn(2, 3, 40, 5).transpose(1, 2)
    cont[0, 0], cont[1, 18, 1], cont[1, 18, 2] = 0, 0, 0.5
    found = []
    for enabled, dtype in ((True, torch.float32), (False, torch.float32), (True, torch.float64)):
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", enabled)
        layer = build_layer(settings, [(40, 3, 8), (40, 3), *[(1, 3, 5)] * len(start)], dtype=dtype)
        for blob, weight in zip(layer.blobs, weights, strict=True):
            blob.data.copy_(weight)
        results = []
        for i in range(2):
            saved: Saved = {}
            bottoms = [value.to(dtype) for value in (x[i], cont[i], *start)]
            tops = layer.forward(bottoms, saved)
            assert ("runs" in saved) == (enabled and dtype == torch.float32)
            diffs = [dy[i].to(dtype), *map(torch.zeros_like, tops[1:])]
            results += tops + layer.backward(bottoms, tops, diffs, saved, [True] + [False] * (len(bottoms) - 1))[:1]
        found.append([value.double() for value in [*results, *layer.state, *(blob.diff for blob in layer.blobs)]])
    torch.testing.assert_close(found[0], found[2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], found[2], rtol=1e-4, atol=1e-4)
