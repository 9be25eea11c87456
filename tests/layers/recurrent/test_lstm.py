"""LSTM."""

from recurrent.sequences import (
    assert_an_encoders_hidden_values_begin_a_decoder,
    assert_no_gradient_goes_from_pass_to_pass,
    assert_other_numbers_of_sequences_begin_anew,
    assert_two_passes_are_one_of_twice_the_length,
    cases,
)
from torch import Tensor


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
