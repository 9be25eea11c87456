"""Fields of forks are read from prototxt as what they stand for."""

import logging
from pathlib import Path

import pytest

from imae.prototxt_like import schema
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.fork_spellings import _FIELDS
from imae.prototxt_like.text import parse_net, parse_solver, read_net_past_unknown_names


def net_of(pooling: str = "", convolution: str = "") -> str:
    return f"""layer {{ name: "data" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: 1 dim: 8 dim: 8 }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "x" top: "c"
  convolution_param {{ num_output: 1 kernel_size: 3 {convolution} }} }}
layer {{ name: "pool" type: "Pooling" bottom: "x" top: "p" pooling_param {{ kernel_size: 3 stride: 2 {pooling} }} }}
"""


@pytest.mark.parametrize(
    ("ours", "forks"),
    [
        ({"pooling": "round_mode: CEIL"}, {"pooling": "ceil_mode: true"}),
        ({"pooling": "round_mode: FLOOR"}, {"pooling": "ceil_mode: false"}),
        ({"convolution": "dilation: 2"}, {"convolution": "hole: 2"}),
        ({"convolution": "dilation: 2 dilation: 3"}, {"convolution": "hole_w: 3 hole_h: 2"}),
        ({"convolution": "dilation: 2 dilation: 3"}, {"convolution": "dilation_h: 2 dilation_w: 3"}),
        (
            {"pooling": "round_mode: FLOOR", "convolution": "dilation: 2"},
            {"pooling": "ceil_mode: false", "convolution": "hole: 2"},
        ),
    ],
)
def test_fields_of_forks_are_those_of_caffe(
    ours: dict[str, str], forks: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    expected = parse_net(net_of(**ours))
    assert not caplog.records
    net = parse_net(net_of(**forks), "net.prototxt")
    assert net == expected
    assert len(caplog.records) == len(forks)


def test_one_warning_for_each_way_however_many_layers(caplog: pytest.LogCaptureFixture) -> None:
    layer = 'layer { name: "pool%d" type: "Pooling" pooling_param { ceil_mode: %s } }\n'
    with caplog.at_level(logging.WARNING):
        parse_net("".join(layer % (i, "true" if i == 2 else "false") for i in range(4)), "a.prototxt")
    assert [record.getMessage() for record in caplog.records] == [
        'a.prototxt: ceil_mode: false is read as round_mode: FLOOR, as in forks of Caffe (layer "pool0" and 2 more)',
        'a.prototxt: ceil_mode: true is read as round_mode: CEIL, as in forks of Caffe (layer "pool2")',
    ]


def test_they_are_read_in_old_layers_and_in_a_solvers_net() -> None:
    old = parse_net('layers { name: "p" type: POOLING pooling_param { ceil_mode: false } }')
    assert old.layer[0].pooling_param.round_mode == schema.PoolingParameter.FLOOR
    solver = parse_solver(f"base_lr: 1 net_param {{ {net_of('ceil_mode: false')} }}")
    assert solver.net_param.layer[2].pooling_param.round_mode == schema.PoolingParameter.FLOOR


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"pooling": "ceil_mode: true round_mode: CEIL"},
            'layer "pool": ceil_mode: true and round_mode are both given',
        ),
        ({"convolution": "hole: 2 dilation: 2"}, 'layer "conv": hole: 2 and dilation are both given'),
        ({"convolution": "hole_h: 2"}, "hole_h: 2; expected dilation, hole, or hole_h and hole_w, and nothing besides"),
        ({"convolution": "hole: 2 hole_h: 2 hole_w: 2"}, "expected dilation, hole, or"),
        ({"pooling": "ceil_mode: false kernel: 3"}, 'net.prototxt:4:117: "kernel" is no field of PoolingParameter'),
        ({"pooling": "ceil_mode: maybe"}, "net.prototxt:4:111: ceil_mode: "),
        ({"pooling": "ceil_mode: true ceil_mode: true"}, '"ceil_mode" is given twice in one PoolingParameter'),
    ],
)
def test_what_is_not_clear_is_an_error(fields: dict[str, str], said: str) -> None:
    with pytest.raises(InputError) as error:
        parse_net(net_of(**fields), "net.prototxt")
    assert str(error.value).startswith("net.prototxt:")
    assert said in str(error.value)


def test_a_check_reads_on_past_other_unknown_fields(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(net_of("ceil_mode: false", "hole: 2 other: 3"))
    net, said = read_net_past_unknown_names(path)
    assert net == parse_net(net_of("round_mode: FLOOR", "dilation: 2"))
    assert len(said) == 1 and ":3:60: " in said[0]


def test_the_schema_itself_lacks_them() -> None:
    for message, fields in _FIELDS.items():
        assert not set(fields) & set(getattr(schema, message).DESCRIPTOR.fields_by_name)
