"""Numbers beyond their field, and shapes that do not fit, are one line: never a traceback, never passed over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Imae = Callable[..., Any]
TRAIN = ("train", "--solver", "solver.prototxt", "--cpu")
HUGE = ("2147483648", "9223372036854775807", "9223372036854775808", "1" + "0" * 40, "1" * 5000)


@pytest.mark.parametrize("number", [*HUGE, "-2147483649", "-" + "1" * 5000])
@pytest.mark.parametrize(
    "command",
    [
        (*TRAIN, "--iterations"),
        (*TRAIN, "--level"),
        ("test", "--model", "net.prototxt", "--weights", "w", "--iterations"),
        ("time", "--model", "net.prototxt", "--level"),
        ("check-gradients", "net.prototxt", "--samples"),
    ],
)
def test_numbers_beyond_their_field_are_wrong_usage(
    imae: Imae, digits: Path, command: tuple[str, ...], number: str
) -> None:
    outcome = imae(*command, number)
    assert outcome.status == 2
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("command", [TRAIN, ("check-gradients", "net.prototxt"), ("demo", "--output", "x")])
@pytest.mark.parametrize("seed", [*HUGE[2:], "-1"])
def test_seeds_beyond_their_field_are_wrong_usage(
    imae: Imae, digits: Path, command: tuple[str, ...], seed: str
) -> None:
    assert imae(*command, "--seed", seed).status == 2


def test_the_largest_numbers_that_a_field_holds_are_taken(imae: Imae, digits: Path) -> None:
    assert imae(*TRAIN, "--iterations", "1", "--seed", HUGE[1], "--level", "2147483647").status == 0
    assert imae("check-gradients", "net.prototxt", "--seed", HUGE[1], "--level", "-2147483648").status == 0


@pytest.fixture
def with_input(imae: Imae, digits: Path) -> tuple[str, ...]:
    """The command that exports a trained net that begins with an Input, pooled over whatever its image's size."""
    (digits / "deploy.prototxt").write_text("""
    layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 3 dim: 1 dim: 8 dim: 8 } } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
      convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "msra" } } }
    layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE global_pooling: true } }
    """)
    from imae.nets.net import Net
    from imae.prototxt_like.binary import write_caffemodel

    write_caffemodel(Net(digits / "deploy.prototxt").to_proto(), digits / "conv.caffemodel")
    return ("export", "--model", "deploy.prototxt", "--weights", "conv.caffemodel", "--output", "net.onnx")


def test_export_follows_the_shape_in_a_net_that_begins_with_an_input(imae: Imae, with_input: tuple[str, ...]) -> None:
    outcome = imae(*with_input, "--shape", "1x12x9")
    assert outcome.status == 0
    assert "input data: Nx1x12x9\n" in outcome.out
    assert "Largest difference" in outcome.out
    assert "input data: Nx1x8x8\n" in imae(*with_input).out


@pytest.mark.parametrize("shape", ["7", "3x8x8", "1x2x2", "1x8", "1x1x8x8", "1x46340x46340", "1x8x8x8x8"])
def test_export_refuses_a_shape_that_does_not_fit_in_one_line(
    imae: Imae, with_input: tuple[str, ...], shape: str
) -> None:
    outcome = imae(*with_input, "--shape", shape)
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert f"with images of {shape}: " in outcome.err
    assert not Path("net.onnx").exists()


@pytest.mark.parametrize(
    "shape", ["0", "1x0x8", "99999999999x1x1", "65536x65536", "1" * 5000, "-1x8x8", "1x8x", "1xx8"]
)
def test_what_is_no_shape_is_wrong_usage(imae: Imae, with_input: tuple[str, ...], shape: str) -> None:
    outcome = imae(*with_input, "--shape", shape)
    assert outcome.status == 2
    assert "Traceback" not in outcome.err


def test_export_does_not_guess_which_of_several_inputs_has_the_shape(imae: Imae, digits: Path) -> None:
    Path("two.prototxt").write_text("""
    layer { name: "in" type: "Input" top: "a" top: "b" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }
    layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
    """)
    from imae.prototxt_like.binary import write_caffemodel
    from imae.prototxt_like.text import read_net

    write_caffemodel(read_net("two.prototxt"), "two.caffemodel")
    given = ("export", "--model", "two.prototxt", "--weights", "two.caffemodel", "--output", "net.onnx")
    outcome = imae(*given, "--shape", "1x4x4")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert "has the inputs a, b" in outcome.err
    assert imae(*given).status == 0


@pytest.mark.parametrize(("dim", "said"), [("-1", "-1x1x8x8"), ("0", "0x1x8x8"), ("2147483647", "numbers")])
def test_an_input_without_a_batch_size_is_told_to_give_one(imae: Imae, digits: Path, dim: str, said: str) -> None:
    Path("in.prototxt").write_text(
        f'layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: {dim} dim: 1 dim: 8 dim: 8 }} }} }}'
    )
    outcome = imae("time", "--model", "in.prototxt")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert 'layer "in" (Input)' in outcome.err
    assert said in outcome.err
