"""What fields may hold: one table, in text and in binary files."""

from pathlib import Path

import pytest

from imae.prototxt_like import schema
from imae.prototxt_like.binary import read_caffemodel
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.limits import RANGES, check_message
from imae.prototxt_like.schema import NetParameter, SolverParameter
from imae.prototxt_like.text import parse_net, parse_solver


def test_the_table_names_fields_of_the_schema() -> None:
    for name in RANGES:
        message, field = name.split(".")
        assert field in getattr(schema, message).DESCRIPTOR.fields_by_name


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("base_lr: -0.1", "base_lr is -0.1, expected at least 0"),
        ("base_lr: nan", "base_lr is nan, expected a finite number"),
        ("base_lr: 1e39", "base_lr is inf, expected a finite number"),
        ("gamma: inf", "gamma is inf, expected a finite number"),
        ("weight_decay: -inf", "weight_decay is -inf, expected a finite number"),
        ("max_iter: -1", "max_iter is -1, expected at least 0"),
        ("test_iter: 1 test_iter: -2", r"test_iter\[1\] is -2, expected at least 0"),
        ("iter_size: 0", "iter_size is 0, expected at least 1"),
        (r'net: "a\000b"', "net holds a zero byte"),
        (
            'net_param { layer { name: "ip" inner_product_param { weight_filler { value: inf } } } }',
            r'net_param\.layer\[0\] "ip"\.inner_product_param\.weight_filler\.value is inf, expected a finite number',
        ),
    ],
)
def test_a_solver_with_what_it_cannot_hold_is_an_error(text: str, fault: str) -> None:
    with pytest.raises(InputError, match=f"^solver: {fault}"):
        parse_solver(text, "solver")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("param { lr_mult: -1 }", r"param\[0\].lr_mult is -1"),
        ("param { decay_mult: nan }", r"param\[0\].decay_mult is nan"),
        ("transform_param { mean_value: 1 mean_value: inf }", r"transform_param.mean_value\[1\] is inf"),
        (
            "input_param { shape { dim: 4294967296 } }",
            r"input_param.shape\[0\].dim\[0\] is 4294967296, expected at most",
        ),
        ("input_param { shape { dim: -2 } }", r"input_param.shape\[0\].dim\[0\] is -2, expected at least -1"),
        (
            f"input_param {{ shape {{ {'dim: 1 ' * 33} }} }}",
            r"input_param.shape\[0\].dim has 33 axes, a blob has at most",
        ),
        ("imae_param { T: inf }", "imae_param.T is inf"),
    ],
)
def test_a_layer_with_what_it_cannot_hold_is_an_error_in_text_and_in_binary_files(
    text: str, fault: str, tmp_path: Path
) -> None:
    for name in ("", 'name: "x" '):
        label = ' "x"' if name else ""
        with pytest.raises(InputError, match=rf"^net: layer\[0\]{label}\.{fault}"):
            parse_net(f"layer {{ {name}{text} }}", "net")
    from google.protobuf import text_format

    net = text_format.Parse(f"layer {{ {text} }}", NetParameter())
    (tmp_path / "net.caffemodel").write_bytes(net.SerializeToString())
    with pytest.raises(InputError, match=rf"net\.caffemodel: layer\[0\]\.{fault}"):
        read_caffemodel(tmp_path / "net.caffemodel")


def test_what_has_a_meaning_is_read() -> None:
    parse_net("layer { clip_param { min: -inf max: inf } reshape_param { shape { dim: 0 dim: -1 } } loss_weight: -1 }")
    parse_solver("test_iter: 0 gamma: -0.5 clip_gradients: -1 random_seed: -1")
    check_message(SolverParameter(), "nothing")
