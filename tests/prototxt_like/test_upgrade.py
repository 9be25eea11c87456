"""Nets of older versions of Caffe come out in the present form, as Caffe itself brings them up to it."""

import pytest
from google.protobuf import text_format

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter, NetParameter, V0LayerParameter, V1LayerParameter
from imae.prototxt_like.text import format_text, parse_net, parse_solver
from imae.prototxt_like.upgrade import old_forms, upgrade_net

V1 = """
name: "v1"
layers {
  name: "pictures" type: DATA top: "x" top: "y"
  data_param { source: "db" batch_size: 4 scale: 0.5 mean_file: "mean" crop_size: 20 mirror: true }
  include { phase: TRAIN }
}
layers {
  name: "ip" type: INNER_PRODUCT bottom: "x" top: "ip"
  param: "w" param: "b" blob_share_mode: PERMISSIVE
  blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layers { name: "loss" type: SOFTMAX_LOSS bottom: "ip" bottom: "y" loss_weight: 2 loss_param { ignore_label: 1 } }
"""
V1_UPGRADED = """
name: "v1"
layer {
  name: "pictures" type: "Data" top: "x" top: "y"
  data_param { source: "db" batch_size: 4 }
  transform_param { scale: 0.5 mean_file: "mean" crop_size: 20 mirror: true }
  include { phase: TRAIN }
}
layer {
  name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  param { name: "w" share_mode: PERMISSIVE lr_mult: 1 decay_mult: 1 }
  param { name: "b" lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" loss_weight: 2 loss_param { ignore_label: 1 } }
"""

V0 = """
name: "v0"
input: "x" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "x" top: "pad1" }
layers {
  layer {
    name: "conv1" type: "conv" num_output: 6 kernelsize: 5 stride: 2 group: 1 biasterm: false
    weight_filler { type: "gaussian" std: 0.1 } blobs_lr: 1 weight_decay: 0.5
  }
  bottom: "pad1" top: "conv1"
}
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: AVE kernelsize: 3 } bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.5 beta: 0.25 k: 2 } bottom: "pool1" top: "norm1" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.2 } bottom: "norm1" top: "norm1" }
layers {
  layer { name: "win" type: "window_data" source: "w" batchsize: 2 cropsize: 7 det_crop_mode: "square" }
  top: "w"
}
"""
V0_UPGRADED = """
name: "v0"
layer { name: "input" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer {
  name: "conv1" type: "Convolution" bottom: "x" top: "conv1"
  param { lr_mult: 1 decay_mult: 0.5 }
  convolution_param {
    num_output: 6 pad: 2 kernel_size: 5 stride: 2 group: 1 bias_term: false
    weight_filler { type: "gaussian" std: 0.1 }
  }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { pool: AVE kernel_size: 3 } }
layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1" lrn_param { local_size: 3 alpha: 0.5 beta: 0.25 k: 2 } }
layer { name: "drop" type: "Dropout" bottom: "norm1" top: "norm1" dropout_param { dropout_ratio: 0.2 } }
layer {
  name: "win" type: "WindowData" top: "w" transform_param { crop_size: 7 }
  window_data_param { source: "w" batch_size: 2 crop_mode: "square" }
}
"""


TRANSFORMATIONS = """
layers { name: "a" type: DATA top: "a" data_param { scale: 0.5 } transform_param { scale: 2 mirror: true } }
layers { name: "b" type: IMAGE_DATA top: "b" image_data_param { crop_size: 3 mirror: false } }
layers { name: "c" type: WINDOW_DATA top: "c" window_data_param { mean_file: "m" crop_size: 4 } }
layers { name: "d" type: DATA top: "d" }
layers { name: "e" type: CONCAT bottom: "a" bottom: "d" top: "e" data_param { scale: 3 } }
"""
TRANSFORMATIONS_UPGRADED = """
layer { name: "a" type: "Data" top: "a" data_param {} transform_param { scale: 0.5 mirror: true } }
layer { name: "b" type: "ImageData" top: "b" image_data_param {} transform_param { crop_size: 3 mirror: false } }
layer { name: "c" type: "WindowData" top: "c" window_data_param {} transform_param { mean_file: "m" crop_size: 4 } }
layer { name: "d" type: "Data" top: "d" data_param {} transform_param {} }
layer { name: "e" type: "Concat" bottom: "a" bottom: "d" top: "e" data_param { scale: 3 } }
"""
PADDING = """
input: "x" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { layer { name: "p" type: "padding" pad: 2 } bottom: "x" top: "p" }
layers { layer { name: "c" type: "conv" num_output: 1 kernelsize: 3 pad: 7 } bottom: "p" top: "c" }
layers { layer { name: "m" type: "pool" kernelsize: 3 } bottom: "p" top: "m" }
layers { layer { name: "p" type: "relu" } bottom: "c" top: "p" }
layers { layer { name: "i" type: "innerproduct" num_output: 2 } bottom: "p" top: "i" }
"""
PADDING_UPGRADED = """
layer { name: "input" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 1 kernel_size: 3 pad: 2 } }
layer { name: "m" type: "Pooling" bottom: "x" top: "m" pooling_param { kernel_size: 3 pad: 2 } }
layer { name: "p" type: "ReLU" bottom: "c" top: "p" }
layer { name: "i" type: "InnerProduct" bottom: "p" top: "i" inner_product_param { num_output: 2 } }
"""


OLD_AND_NEW = {
    "V1": (V1, V1_UPGRADED),
    "V0": (V0, V0_UPGRADED),
    "transformations": (TRANSFORMATIONS, TRANSFORMATIONS_UPGRADED),
    "padding": (PADDING, PADDING_UPGRADED),
}


@pytest.mark.parametrize(("old", "new"), OLD_AND_NEW.values(), ids=OLD_AND_NEW)
def test_an_old_net_becomes_the_present_one(old: str, new: str) -> None:
    assert format_text(parse_net(old)) == format_text(parse_net(new))


def test_a_present_net_stays_as_it_is() -> None:
    net = parse_net(V1_UPGRADED)
    again = NetParameter()
    again.CopyFrom(net)
    upgrade_net(again, "net")
    assert again == net


def test_every_v1_type_has_a_present_name() -> None:
    present = {
        name: parse_net(f'layers {{ name: "x" type: {name} }}').layer[0].type
        for name in V1LayerParameter.LayerType.keys()  # noqa: SIM118  (an enum wrapper, not a dict)
    }
    assert present["SIGMOID_CROSS_ENTROPY_LOSS"] == "SigmoidCrossEntropyLoss"
    assert present["HDF5_DATA"] == "HDF5Data"
    assert present["IM2COL"] == "Im2col"
    assert present["ABSVAL"] == "AbsVal"
    assert present.pop("NONE") == ""
    assert all(name and name[0].isupper() and "_" not in name for name in present.values())


def test_several_inputs_get_a_shape_each() -> None:
    net = parse_net('input: "a" input: "b" input_shape { dim: 2 } input_shape { dim: [3, 4] } layer { name: "last" }')
    assert [layer.name for layer in net.layer] == ["input", "last"]
    assert [list(shape.dim) for shape in net.layer[0].input_param.shape] == [[2], [3, 4]]
    assert list(net.layer[0].top) == ["a", "b"]
    assert not (net.input or net.input_shape or net.input_dim)


def test_an_input_without_shape_as_in_old_caffemodels_goes_away() -> None:
    assert [layer.name for layer in parse_net('input: "data" layer { name: "conv" }').layer] == ["conv"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('input: "a" input_dim: [1, 2, 3]', "1 input and 3 input_dim"),
        ('input: "a" input: "b" input_shape { dim: 1 }', "2 input and 1 input_shape"),
    ],
)
def test_inputs_and_shapes_that_do_not_fit_are_an_error(text: str, found: str) -> None:
    with pytest.raises(InputError, match=f"^net: {found} do not fit"):
        parse_net(text, "net")


def test_batch_norms_three_multipliers_become_zero() -> None:
    net = parse_net(
        'layer { type: "BatchNorm" param {} param { lr_mult: 2 } param { name: "c" decay_mult: 3 } }'
        'layer { type: "BatchNorm" param { lr_mult: 1 } }'
        'layer { type: "Scale" param {} param {} param { lr_mult: 3 } }'
    )
    assert [(param.lr_mult, param.decay_mult) for param in net.layer[0].param] == [(0, 0)] * 3
    assert net.layer[0].param[2].name == "c"
    assert net.layer[1].param[0].lr_mult == 1
    assert net.layer[2].param[2].lr_mult == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('layer { name: "a" } layers { name: "b" }', 'net: the net has both "layer" and the older "layers"'),
        (
            'layer { name: "a" } layers { layer { name: "b" type: "relu" } }',
            'net: the net has both "layer" and the older "layers"',
        ),
        (
            'layers { layer { name: "c" type: "conf" } }',
            'net: layers[0] "c": "conf" is no V0 layer type; expected one of',
        ),
        (
            'layers { layer { type: "padding" } bottom: "x" top: "p" }'
            'layers { layer { name: "r" type: "relu" } bottom: "p" top: "r" }',
            'net: layers[0] "": no layer before it produces its bottom "x"',
        ),
        (
            'input: "x" layers { layer { type: "padding" } bottom: "x" top: "p" }'
            'layers { layer { name: "r" type: "relu" } bottom: "p" top: "r" }',
            'net: layers[1] "r": of type "relu" reads a padding layer; only a conv or pool layer with one bottom can',
        ),
        (
            'input: "x" layers { layer { type: "padding" } bottom: "x" top: "p" }'
            'layers { layer { name: "c" type: "conv" } bottom: "p" bottom: "x" top: "c" }',
            'net: layers[1] "c": of type "conv" reads a padding layer; only a conv or pool layer with one bottom can',
        ),
        (
            'input: "x" layers { layer { name: "a" type: "padding" } bottom: "x" top: "p" }'
            'layers { layer { name: "b" type: "padding" } bottom: "p" top: "q" }',
            'net: layers[1] "b": of type "padding" reads a padding layer; only a conv or pool layer with one bottom',
        ),
        (
            'layers { layer { name: "p" type: "padding" } top: "p" }'
            'layers { layer { name: "c" type: "conv" } bottom: "p" top: "c" }',
            'net: layers[1] "c": its padding layer "p" must have one bottom and one top',
        ),
    ],
)
def test_contradictions_are_errors(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_net(text, "net")
    assert str(error.value).startswith(message)


def test_what_cannot_be_carried_over_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    parse_net('layers { layer { name: "r" type: "relu" kernelsize: 3 } }', "net")
    assert 'net: layers[0] "r": a layer of type "relu" has no "kernelsize"; dropped' in caplog.text
    net = NetParameter(layers=[{"name": "fork"}])
    net.layers[0].MergeFromString(b"\x28\xe7\x07")  # type 999: an enum value Caffe lacks
    upgrade_net(net, "net")
    assert 'net: layers[0] "fork": field 5 is unknown and cannot be upgraded; dropped' in caplog.text
    assert net.layer[0].type == ""


V0_TYPES = {
    "accuracy": "Accuracy",
    "bnll": "BNLL",
    "concat": "Concat",
    "conv": "Convolution",
    "data": "Data",
    "dropout": "Dropout",
    "euclidean_loss": "EuclideanLoss",
    "flatten": "Flatten",
    "hdf5_data": "HDF5Data",
    "hdf5_output": "HDF5Output",
    "im2col": "Im2col",
    "images": "ImageData",
    "infogain_loss": "InfogainLoss",
    "innerproduct": "InnerProduct",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MultinomialLogisticLoss",
    "pool": "Pooling",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
    "softmax_loss": "SoftmaxWithLoss",
    "split": "Split",
    "tanh": "TanH",
    "window_data": "WindowData",
}
PARAMS = {
    "concat": "concat_param",
    "conv": "convolution_param",
    "data": "data_param",
    "dropout": "dropout_param",
    "hdf5_data": "hdf5_data_param",
    "hdf5_output": "hdf5_output_param",
    "images": "image_data_param",
    "infogain_loss": "infogain_loss_param",
    "innerproduct": "inner_product_param",
    "lrn": "lrn_param",
    "pool": "pooling_param",
    "window_data": "window_data_param",
}
# Of each field of V0: a value, the field that Caffe's UpgradeV0LayerParameter moves it to, and of which types.
V0_FIELDS = {
    "num_output": ("7", "num_output", "conv innerproduct"),
    "biasterm": ("false", "bias_term", "conv innerproduct"),
    "weight_filler": ('{ type: "xavier" }', "weight_filler", "conv innerproduct"),
    "bias_filler": ("{ value: 2 }", "bias_filler", "conv innerproduct"),
    "pad": ("3", "pad", "conv pool"),
    "kernelsize": ("3", "kernel_size", "conv pool"),
    "group": ("2", "group", "conv"),
    "stride": ("2", "stride", "conv pool"),
    "pool": ("STOCHASTIC", "pool", "pool"),
    "dropout_ratio": ("0.25", "dropout_ratio", "dropout"),
    "local_size": ("3", "local_size", "lrn"),
    "alpha": ("0.25", "alpha", "lrn"),
    "beta": ("0.25", "beta", "lrn"),
    "k": ("2", "k", "lrn"),
    "source": ('"s"', "source", "data hdf5_data images window_data infogain_loss"),
    "batchsize": ("2", "batch_size", "data hdf5_data images window_data"),
    "rand_skip": ("2", "rand_skip", "data images"),
    "shuffle_images": ("true", "shuffle", "images"),
    "new_height": ("5", "new_height", "images"),
    "new_width": ("5", "new_width", "images"),
    "concat_dim": ("0", "concat_dim", "concat"),
    "det_fg_threshold": ("0.25", "fg_threshold", "window_data"),
    "det_bg_threshold": ("0.25", "bg_threshold", "window_data"),
    "det_fg_fraction": ("0.5", "fg_fraction", "window_data"),
    "det_context_pad": ("1", "context_pad", "window_data"),
    "det_crop_mode": ('"square"', "crop_mode", "window_data"),
}
V0_OF_EVERY_TYPE = {
    "scale": ("0.5", "transform_param { scale: 0.5 }"),
    "meanfile": ('"m"', 'transform_param { mean_file: "m" }'),
    "cropsize": ("5", "transform_param { crop_size: 5 }"),
    "mirror": ("true", "transform_param { mirror: true }"),
    "blobs": ("{ num: 1 data: 2 }", "blobs { num: 1 data: 2 }"),
    "blobs_lr": ("2", "param { lr_mult: 2 }"),
    "weight_decay": ("0", "param { decay_mult: 0 }"),
    "new_num": ("3", ""),
    "new_channels": ("3", ""),
}


@pytest.mark.parametrize("v0_type", V0_TYPES)
def test_every_field_of_a_v0_layer_goes_where_caffe_has_it(v0_type: str) -> None:
    def upgraded(field: str, text: str) -> tuple[LayerParameter, list[str]]:
        separator = "" if text.startswith("{") else ":"
        layer = NetParameter(layers=[{"layer": {"name": "x", "type": v0_type}, "top": ["y"]}]).layers[0]
        text_format.Merge(f"{field}{separator} {text}", layer.layer)
        net = NetParameter(layers=[layer])
        lost = upgrade_net(net, "net")
        return net.layer[0], lost

    head = f'name: "x" type: "{V0_TYPES[v0_type]}" top: "y" '
    for field, (text, new_field, types) in V0_FIELDS.items():
        layer, lost = upgraded(field, text)
        separator = "" if text.startswith("{") else ":"
        taken = v0_type in types.split()
        own = f"{PARAMS[v0_type]} {{ {new_field}{separator} {text} }}" if taken else ""
        assert layer == text_format.Parse(head + own, LayerParameter()), field
        assert lost == ([] if taken else [f'net: layers[0] "x": a layer of type "{v0_type}" has no "{field}"; dropped'])
    for field, (text, own) in V0_OF_EVERY_TYPE.items():
        assert upgraded(field, text) == (text_format.Parse(head + own, LayerParameter()), []), field
    layer, lost = upgraded("hdf5_output_param", '{ file_name: "f" }')
    assert layer.HasField("hdf5_output_param") == (not lost) == (v0_type == "hdf5_output")


def test_the_table_has_every_field_of_v0() -> None:
    told = {*V0_FIELDS, *V0_OF_EVERY_TYPE, "name", "type", "hdf5_output_param"}
    assert told == set(V0LayerParameter.DESCRIPTOR.fields_by_name)


V1_TO_PRESENT = {
    "param": ('"w"', 'param { name: "w" }'),
    "blob_share_mode": ("PERMISSIVE", "param { share_mode: PERMISSIVE }"),
    "blobs_lr": ("2", "param { lr_mult: 2 }"),
    "weight_decay": ("0", "param { decay_mult: 0 }"),
    "type": ("RELU", 'type: "ReLU"'),
}
PLAIN = {"bottom": '"b"', "top": '"t"', "name": '"n"', "loss_weight": "2"}


@pytest.mark.parametrize("field", sorted(set(V1LayerParameter.DESCRIPTOR.fields_by_name) - {"layer"}))
def test_every_field_of_a_v1_layer_goes_where_caffe_has_it(field: str) -> None:
    old, new = V1_TO_PRESENT.get(field, (PLAIN.get(field, "{}"), f"{field}: {PLAIN.get(field, '{}')}"))
    net = text_format.Parse(f"layers {{ {field}: {old} }}", NetParameter())
    assert upgrade_net(net, "net") == []
    assert net == text_format.Parse(f"layer {{ {new} }}", NetParameter())


def test_what_a_file_has_in_an_old_form_is_told_and_nothing_after_the_upgrade() -> None:
    def forms(text: str) -> list[str]:
        net = text_format.Parse(text, NetParameter())
        found = old_forms(net)
        upgrade_net(net, "net")
        assert old_forms(net) == []
        return found

    assert forms(V0) == ["V0 layers", "input fields"]
    assert forms(V1) == ["V1 layers", "transformations among the settings of data layers"]
    assert forms('layer { type: "BatchNorm" param {} param {} param {} }') == ["the multipliers of BatchNorm"]
    assert forms(V1_UPGRADED) == []


@pytest.mark.parametrize("old", ["SGD", "NESTEROV", "ADAGRAD", "RMSPROP", "ADADELTA", "ADAM"])
def test_the_old_enum_of_a_solver_becomes_its_type(old: str) -> None:
    names = {"SGD": "SGD", "NESTEROV": "Nesterov", "ADAGRAD": "AdaGrad", "RMSPROP": "RMSProp"}
    solver = parse_solver(f"base_lr: 1 solver_type: {old}")
    assert solver.type == {**names, "ADADELTA": "AdaDelta", "ADAM": "Adam"}[old]
    assert not solver.HasField("solver_type")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "Adam" solver_type: ADAM', 'solver: the solver has both "type" and the older "solver_type"'),
        ("solver_type: LBFGS", 'solver:1:14: solver_type: "LBFGS" is none of its values'),
        ("solver_type: 9", 'solver:1:14: solver_type: "9" is none of its values'),
    ],
)
def test_a_solver_of_no_type_or_of_two_is_an_error(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_solver(text, "solver")
    assert str(error.value).startswith(message)


def test_what_stands_beside_a_v0_layer_is_told() -> None:
    net = text_format.Parse('layers { layer { name: "r" type: "relu" } name: "x" include {} }', NetParameter())
    beside = 'net: layers[0] "r": "{}" stands beside a V0 layer, which has no such field; dropped'
    assert upgrade_net(net, "net") == [beside.format("name"), beside.format("include")]
