"""RNN."""

from recurrent.sequences import (
    assert_an_encoders_hidden_values_begin_a_decoder,
    assert_no_gradient_goes_from_pass_to_pass,
    assert_other_numbers_of_sequences_begin_anew,
    assert_two_passes_are_one_of_twice_the_length,
    cases,
)
from torch import Tensor


def step(inputs: Tensor, before: list[Tensor], blobs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """o and h."""
    h = inputs.tanh()
    return (h @ blobs[1].t() + blobs[2]).tanh(), [h]


CASES = cases("RNN", step, ("h",))


MISTAKES = [
    ('type: "RNN"', [(2, 3, 4), (2, 3)], "num_output is missing or 0"),
    (
        'type: "RNN" recurrent_param { num_output: 2 }',
        [(2, 3), (2, 3)],
        "needs at least 1 input from axis 2 on, x is 2x3",
    ),
    (
        'type: "RNN" recurrent_param { num_output: 2 }',
        [(2, 3, 4), (3, 2)],
        "cont must be 2x3, as x is 2x3x4, found 3x2",
    ),
    (
        'type: "RNN" recurrent_param { num_output: 2 }',
        [(2, 3, 4), (2, 3), (2, 4)],
        "x_static must have 3 sequences of 4 inputs, is 2x4",
    ),
    (
        'type: "RNN" recurrent_param { num_output: 2 expose_hidden: true }',
        [(2, 3, 4), (2, 3)],
        "takes 3 to 4 bottom blobs, the prototxt gives 2",
    ),
]


def test_two_passes_are_one_of_twice_the_length() -> None:
    assert_two_passes_are_one_of_twice_the_length("RNN")


def test_no_gradient_goes_from_pass_to_pass() -> None:
    assert_no_gradient_goes_from_pass_to_pass("RNN")


def test_other_numbers_of_sequences_begin_anew() -> None:
    assert_other_numbers_of_sequences_begin_anew("RNN")


def test_an_encoders_hidden_values_begin_a_decoder() -> None:
    assert_an_encoders_hidden_values_begin_a_decoder("RNN", ("h",))
