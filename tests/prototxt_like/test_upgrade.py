"""Nets of older versions of Caffe come out in the present form, as Caffe itself brings them up to it."""

import pytest

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import NetParameter, V1LayerParameter
from imae.prototxt_like.text import format_text, parse_net
from imae.prototxt_like.upgrade import upgrade_net

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


@pytest.mark.parametrize(("old", "new"), [(V1, V1_UPGRADED), (V0, V0_UPGRADED)], ids=["V1", "V0"])
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
            'layers { layer { name: "c" type: "conf" } }',
            'net: layers[0] "c": "conf" is no V0 layer type; expected one of',
        ),
        (
            'layers { layer { type: "padding" } bottom: "x" top: "p" }'
            'layers { layer { name: "r" type: "relu" } bottom: "p" top: "r" }',
            'net: layer "r" of type "relu" reads a padding layer; only a conv or pool layer with one bottom can',
        ),
        ('layers { layer { name: "p" type: "padding" } }', 'net: padding layer "p" must have one bottom and one top'),
    ],
)
def test_contradictions_are_errors(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_net(text, "net")
    assert str(error.value).startswith(message)


def test_what_cannot_be_carried_over_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    parse_net('layers { layer { name: "r" type: "relu" kernelsize: 3 } }', "net")
    assert 'net: layers[0] "r": a layer of type "relu" has no "kernelsize"; ignored' in caplog.text
    net = NetParameter(layers=[{"name": "fork"}])
    net.layers[0].MergeFromString(b"\x28\xe7\x07")  # type 999: an enum value Caffe lacks
    upgrade_net(net, "net")
    assert 'net: layers[0] "fork": field 5 is unknown and cannot be upgraded; dropped' in caplog.text
    assert net.layer[0].type == ""
