"""DummyData: Caffe's DummyDataLayer."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from imae.layers.layer import TEST
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

Make = Callable[..., Any]
NORMAL = 'data_filler { type: "gaussian" std: 2 }'
THREE = 'data_filler { type: "constant" value: 3 }'


def layer_text(own: str, tops: int = 1) -> str:
    names = " ".join(f'top: "t{i}"' for i in range(tops))
    return f'type: "DummyData" {names} dummy_data_param {{ {own} }}'


def test_without_a_filler_blobs_are_zero(make: Make) -> None:
    layer, shapes = make(layer_text("shape { dim: 2 dim: 3 }", 2))
    assert shapes == [(2, 3), (2, 3)] and all(torch.equal(top, torch.zeros(2, 3)) for top in layer.batch(0))


def test_each_top_has_its_shape_and_filler(make: Make) -> None:
    layer, shapes = make(layer_text(f"shape {{ dim: 400 dim: 5 }} shape {{ dim: 4 }} {NORMAL} {THREE}", 2))
    assert shapes == [(400, 5), (4,)]
    drawn, constant = layer.batch(0)
    assert abs(float(drawn.std()) - 2) < 0.2 and constant.tolist() == [3] * 4
    scalar, shapes = make(layer_text(f"shape {{ }} {THREE}"))
    assert shapes == [()] and scalar.batch(0)[0].item() == 3


def test_the_old_sizes_are_given_once_or_for_each_top(make: Make) -> None:
    assert make(layer_text("num: 2 channels: 3 height: 4 width: 5", 2))[1] == [(2, 3, 4, 5)] * 2
    sizes = "num: 2 num: 7 channels: 3 height: 4 height: 1 width: 5"
    assert make(layer_text(sizes, 2))[1] == [(2, 3, 4, 5), (7, 3, 1, 5)]


def test_what_is_random_is_drawn_anew_in_each_pass_by_seed_and_number(make: Make) -> None:
    text = layer_text(f"shape {{ dim: 50 }} {NORMAL}", 2)
    layer, _ = make(text, seed=1)
    passes = [layer.batch(number) for number in range(3)]
    assert not torch.equal(passes[0][0], passes[1][0]) and not torch.equal(passes[0][0], passes[0][1])
    assert torch.equal(make(text, seed=1)[0].batch(2)[1], passes[2][1])
    assert not torch.equal(make(text, seed=2)[0].batch(2)[1], passes[2][1])


def test_what_is_constant_is_filled_once(make: Make) -> None:
    layer, _ = make(layer_text(f"shape {{ dim: 5 }} {THREE}"))
    assert layer.batch(0)[0] is layer.batch(1)[0]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("", "needs shape once, or once for each of its 3 tops, not 0 times"),
        ("shape { dim: 1 } shape { dim: 2 }", "needs shape once, or once for each of its 3 tops, not 2 times"),
        ("num: 1 channels: 1 height: 1", "needs width once, or once for each of its 3 tops, not 0 times"),
        ("num: 1 num: 2 channels: 1 height: 1 width: 1", "needs num once"),
        ("num: 1 shape { dim: 1 }", "both shape and num, channels, height or width"),
        (f"shape {{ dim: 1 }} {NORMAL} {NORMAL}", "data_filler must be given once, or for each of its 3 tops"),
        ("shape { dim: 2 dim: 0 }", "would be 2x0, expected sizes of 1 or more"),
        ("shape { dim: -2 }", "would be -2, expected sizes of 1 or more"),
        ("shape { dim: 70000 dim: 70000 }", "more than the 2147483647 numbers"),
        ('shape { dim: 2 } data_filler { type: "gausian" }', 'unknown filler "gausian"'),
        ('shape { dim: 2 } data_filler { type: "bilinear" }', "bilinear filler needs square"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(make: Make, own: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        make(layer_text(own, 3))
    assert 'layer "data" (DummyData)' in str(error.value) and "\n" not in str(error.value)


def test_a_net_runs_without_data() -> None:
    text = f'layer {{ name: "d" {layer_text(f"shape {{ dim: 4 dim: 3 }} {NORMAL}")} }}'
    text += ' layer { name: "ip" type: "InnerProduct" bottom: "t0" top: "ip" inner_product_param { num_output: 2 } }'
    net = Net(parse_net(text, "net"), TEST)
    assert net.forward()["ip"].shape == (4, 2)
