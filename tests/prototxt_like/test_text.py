"""Prototxt text: what is read and written, and where an error is said to be."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter, NetParameter, SolverParameter
from imae.prototxt_like.text import (
    format_text,
    parse_net,
    parse_solver,
    read_net,
    read_net_past_unknown_names,
    read_solver,
    write_text,
)

SHARED = Path(__file__).resolve().parents[2] / "../shared/data/resnet20"
GOLDEN = Path(__file__).resolve().parents[1] / "golden"

needs_resnet20 = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")


@needs_resnet20
def test_a_real_net_is_read_whole_and_survives_being_written(tmp_path: Path) -> None:
    net = read_net(SHARED / "res20_cifar_train_test.prototxt")
    assert net.name == "resnet_cifar10"
    assert len(net.layer) == 97
    assert net.layer[0].data_param.batch_size == 128
    write_text(net, tmp_path / "net.prototxt")
    assert read_net(tmp_path / "net.prototxt") == net


@needs_resnet20
def test_a_real_solver_is_read_whole() -> None:
    solver = read_solver(SHARED / "solver.prototxt")
    assert list(solver.stepvalue) == [32000, 48000]
    assert solver.base_lr == pytest.approx(0.1)
    assert solver.snapshot_prefix == "cifar10_res20"


def test_the_golden_training_files_are_read() -> None:
    assert read_net(GOLDEN / "train/net.prototxt").layer
    assert read_solver(GOLDEN / "train/solver.prototxt").net


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "layer {\n  convolution_param { num_ouput: 3 }\n}",
            '2:23: "num_ouput" is no field of ConvolutionParameter; did you mean "num_output"?',
        ),
        ("laier { }", '1:1: "laier" is no field of NetParameter; did you mean "layer"?'),
        ("layer { pooling_param { pool: max } }", '1:31: pool: "max" is none of its values; did you mean "MAX"?'),
        (
            "layer { pooling_param { pool: MIN } }",
            '1:31: pool: "MIN" is none of its values; expected one of MAX, AVE, STOCHASTIC',
        ),
        ("layer {\n pooling_param {\n  pool: 7 } }", '3:9: pool: "7" is none of its values; expected one of MAX'),
        ('layer { name: "a"\n name: "b" }', '2:8: "name" is given twice in one LayerParameter'),
        ("layer { lrn_param {}\n lrn_param {} }", '2:12: "lrn_param" is given twice in one LayerParameter'),
        ("layer { type: ReLU }", """1:15: type: Expected string but found: 'ReLU', which needs quotes: "ReLU\""""),
        ("layer { convolution_param { num_output: -3 } }", "1:41: num_output: Value out of range: -3"),
        ("layer { convolution_param { num_output: 3.5 } }", "1:41: num_output: Couldn't parse integer: 3.5"),
        ("layer { loss_weight: much }", "1:22: loss_weight: Couldn't parse float: much"),
        ('layer { name: "a\n}', "1:15: name: String missing ending quote"),
        ("\n\nlayer {", '3:7: Expected "}"'),
        ("input_dim: [1, 2", '1:17: Expected ","'),
        (
            "layer {\n lrn_param {\n}\nlayer { }",
            '4:1: "layer" is no field of LayerParameter; is a "}" missing before it?',
        ),
        (
            "layer { num_output: 3 }",
            '1:9: "num_output" is no field of LayerParameter; it belongs in convolution_param or',
        ),
        (
            "base_lr: 3",
            '1:1: "base_lr" is no field of NetParameter; it is one of SolverParameter: is this the right file?',
        ),
        ("@", "1:1: Expected identifier or number, got @"),
    ],
)
def test_an_error_names_line_column_and_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_net(text, "net.prototxt")
    assert str(error.value).startswith(f"net.prototxt:{message}")
    assert "\n" not in str(error.value)


def test_a_missing_required_field_is_named() -> None:
    with pytest.raises(InputError, match=r"^<string>: the required layer\[0\]\.clip_param\.max is missing$"):
        parse_net("layer { clip_param { min: 0 } }")


@pytest.mark.parametrize("text", ["", " \n\t", "# only a comment"])
def test_a_file_without_fields_is_an_error_not_an_empty_net(text: str, tmp_path: Path) -> None:
    path = tmp_path / "empty.prototxt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"empty\.prototxt: expected a NetParameter as prototxt, but there is nothing"):
        read_net(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.prototxt: cannot be read: No such file"):
        read_net(tmp_path / "gone.prototxt")


def test_a_binary_file_given_as_text_is_recognised() -> None:
    with pytest.raises(InputError, match=r"expected prototxt, but it holds zero bytes: it looks like a caffemodel$"):
        read_net(GOLDEN / "solvers/sgd_plain_iter_5.caffemodel")


def test_other_encodings_are_taken_in_comments_only_as_caffe_does(tmp_path: Path) -> None:
    path = tmp_path / "gbk.prototxt"
    path.write_bytes('# 训练\nname: "a # b" # \'x" 训练\n'.encode("gbk"))
    assert read_net(path).name == "a # b"
    path.write_bytes('# x\n\nname: "训练"'.encode("gbk"))
    with pytest.raises(InputError, match=r"gbk\.prototxt:3: expected prototxt in UTF-8"):
        read_net(path)


def test_a_byte_order_mark_and_windows_line_ends_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "windows.prototxt"
    path.write_bytes('\ufeffname: "ä"\r\nlayer {\r\n  nam: "x"\r\n}\r\n'.encode())
    with pytest.raises(
        InputError, match=r'windows\.prototxt:3:3: "nam" is no field of LayerParameter; did you mean "name"'
    ):
        read_net(path)
    path.write_bytes('\ufeffname: "ä"\r\n'.encode())
    assert read_net(path).name == "ä"


def test_the_old_solver_enum_becomes_the_type() -> None:
    solver = parse_solver("solver_type: RMSPROP")
    assert (solver.type, solver.HasField("solver_type")) == ("RMSProp", False)
    with pytest.raises(InputError, match=r'^s: the solver has both "type" and the older "solver_type"'):
        parse_solver('solver_type: ADAM type: "Adam"', "s")


def test_a_net_inside_a_solver_is_upgraded() -> None:
    solver = parse_solver("net_param { layers { type: RELU } } test_net_param { layers { type: LRN } }")
    assert solver.net_param.layer[0].type == "ReLU"
    assert solver.test_net_param[0].layer[0].type == "LRN"


def test_the_snapshot_prefix_follows_the_solvers_name_as_in_caffe(tmp_path: Path) -> None:
    path = tmp_path / "my.solver.prototxt"
    path.write_text("base_lr: 1")
    assert read_solver(path).snapshot_prefix == str(tmp_path / "my.solver")
    path.write_text(f'snapshot_prefix: "{tmp_path}"')
    assert read_solver(path).snapshot_prefix == str(tmp_path / "my.solver")
    path.write_text('snapshot_prefix: "elsewhere/run"')
    assert read_solver(path).snapshot_prefix == "elsewhere/run"


def test_leaving_unknown_fields_out_of_text_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    net = NetParameter(name="n")
    net.layer.add(name="conv1").MergeFromString(b"\xf8\x3e\x05")
    assert "1007" not in format_text(net)
    assert 'layer[0] "conv1": field 1007' in caplog.text


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
fillers = st.fixed_dictionaries(
    {}, optional={"type": names, "value": floats, "sparse": st.integers(-(2**31), 2**31 - 1)}
)
convolutions = st.fixed_dictionaries(
    {},
    optional={
        "num_output": st.integers(0, 2**32 - 1),
        "pad": st.lists(st.integers(0, 9)),
        "weight_filler": fillers,
        "engine": st.sampled_from([0, 1, 2]),
    },
)
layers = st.builds(
    LayerParameter,
    name=names,
    type=names,
    bottom=st.lists(names, max_size=3),
    loss_weight=st.lists(floats, max_size=3),
    propagate_down=st.lists(st.booleans(), max_size=3),
    convolution_param=convolutions,
)


@given(st.builds(NetParameter, name=names, layer=st.lists(layers, max_size=3), force_backward=st.booleans()))
def test_any_net_survives_text(net: NetParameter) -> None:
    assert parse_net(format_text(net)) == net


@given(st.builds(SolverParameter, base_lr=floats.map(abs), net=names, stepvalue=st.lists(st.integers(0, 2**31 - 1))))
def test_any_solver_survives_text(solver: SolverParameter) -> None:
    assert parse_solver(format_text(solver)) == solver


TOKENS = r"""
layer layers { } : [ ] , ; < > # \ ' " "a" "\xff" "\ud800" 1 -1 1e9 99999999999 nan true é
name input_dim type pool MAX pooling_param blobs data [x.y/z]
"""


@settings(max_examples=300)
@given(st.text() | st.lists(st.sampled_from([*TOKENS.split(), "\n", "\0"]), max_size=15).map(" ".join))
def test_no_text_raises_anything_but_an_input_error_of_one_line(text: str) -> None:
    try:
        parse_net(text)
    except InputError as error:
        assert "\n" not in str(error)


def test_numbers_are_read_as_caffe_reads_them() -> None:
    net = parse_net("layer { loss_weight: 1.f loss_weight: .5 loss_weight: 1e-3 clip_param { min: -inf max: 6 } }")
    assert list(net.layer[0].loss_weight) == pytest.approx([1, 0.5, 1e-3])
    assert net.layer[0].clip_param.min == -math.inf
    assert list(parse_net("input_dim: [0x10, 010]").input_dim) == [16, 8]


PAST = """
name: "x" # "
layer { name: "p" type: "Permute" reorg_param { order: 0 order: [1, 2] # }
 s: "}" 't' } bottom: "a" }
layer { name: "q" pooling_param { pool: L2 kernel_size: 3, kk: -1.5; stride: 2 } foo: "a" "b" bar <x: 1> bottom: "b" }
zzz { }
"""


def test_unknown_names_are_left_out_one_by_one_and_told_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(PAST)
    net, said = read_net_past_unknown_names(path)
    assert net == parse_net("""
        name: "x" layer { name: "p" type: "Permute" bottom: "a" }
        layer { name: "q" pooling_param { kernel_size: 3 stride: 2 } bottom: "b" }
    """)
    told = [line.removeprefix(f"{path}:").split(" ")[:2] for line in said]
    assert told == [
        ["3:35:", '"reorg_param"'],
        ["5:41:", "pool:"],
        ["5:60:", '"kk"'],
        ["5:82:", '"foo"'],
        ["5:95:", '"bar"'],
        ["6:1:", '"zzz"'],
    ]
    for text in ("name: 'x' name: 'y' foo: 1", "foo: 1 layer {", "foo: 1 # all"):
        path.write_text(text)
        with pytest.raises(InputError):
            read_net_past_unknown_names(path)
