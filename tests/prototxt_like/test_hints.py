"""A hint is given only where following it gives what was meant: for slips, and for what is known under another name."""

import pytest

from imae.layers.registry import create_layer, registry
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.known_names import CAFFE_LAYERS, FORK_LAYERS, RENAMED_FIELDS
from imae.prototxt_like.schema import LayerParameter, SolverParameter
from imae.prototxt_like.text import did_you_mean, parse_net
from imae.solvers.learning_rate import check_policy


def refused_type(type: str) -> str:
    with pytest.raises(InputError) as error:
        create_layer(LayerParameter(name="l", type=type))
    return str(error.value)


def refused_text(text: str) -> str:
    with pytest.raises(InputError) as error:
        parse_net(text)
    return str(error.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("kernel_sixe", "kernel_size"),
        ("kernelsize", "kernel_size"),
        ("KERNEL-SIZE", "kernel_size"),
        ("num_outpt", "num_output"),
        ("padd", "pad"),
        ("base_rl", "base_lr"),
        ("dta", "data"),
        ("lable", "label"),
        ("momemtum", "momentum"),
        ("conv1_", "conv1"),
    ],
)
def test_slips_are_recognised(written: str, meant: str) -> None:
    names = ["kernel_size", "num_output", "pad", "stride", "base_lr", "data", "label", "momentum", "conv1"]
    assert did_you_mean(written, names) == f'; did you mean "{meant}"?'


@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("conv2", "conv1"),
        ("pool", "pool5"),
        ("inception_3b/output", "inception_3a/output"),
        ("AVG", "AVE"),
        ("MSE", "MAE"),
        ("SoftmaxWithCCELoss", "SoftmaxWithGCELoss"),
        ("bn_param", "lrn_param"),
        ("a", "b"),
        ("PReLU", "ReLU"),
        ("Deconv", "Conv"),
        ("Deconvolution", "Convolution"),
        ("ImageData", "MarsData"),
        ("ROIPooling", "Pooling"),
    ],
)
def test_other_names_are_no_slips(written: str, there: str) -> None:
    assert did_you_mean(written, [there]) == ""


def test_caffe_has_61_layer_types() -> None:
    assert len(CAFFE_LAYERS) == 61
    assert not CAFFE_LAYERS & set(FORK_LAYERS)


def test_every_type_of_caffes_is_here() -> None:
    assert set(registry) >= CAFFE_LAYERS


def test_a_type_of_a_fork_is_named_as_the_forks() -> None:
    for type, fork in FORK_LAYERS.items():
        if type not in registry:
            assert refused_type(type) == f'layer "l": the layer type "{type}" is of {fork}\'s Caffe, not of BVLC\'s'


@pytest.mark.parametrize(
    ("written", "meant"),
    [("Relu", "ReLU"), ("INNER_PRODUCT", "InnerProduct"), ("Sotfmax", "Softmax"), ("Convolutoin", "Convolution")],
)
def test_slips_in_a_layers_type_are_recognised(written: str, meant: str) -> None:
    assert refused_type(written) == f'layer "l": unknown layer type "{written}"; did you mean "{meant}"?'


@pytest.mark.parametrize("type", ["GELU", "Linear", "MSELoss", "CCELoss", "Conv2d", "Mine"])
def test_an_unknown_type_that_is_no_slip_is_told_what_there_is(type: str) -> None:
    assert f'unknown layer type "{type}"; known are A' in refused_type(type)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("blobs_lr: 2", 'did you mean "param"? blobs_lr: 2 is param { lr_mult: 2 }'),
        ("annotated_data_param { }", "is no field of LayerParameter; it is of SSD's Caffe, not of BVLC's"),
        ("reorg_param { stride: 2 }", "it is of YOLO's Caffe"),
        ("reorg_param { }", "it is of YOLO's Caffe"),
        ("kernel_size: 3", "it belongs in"),
        ("foo_param { }", '"foo_param" is no field of LayerParameter'),
    ],
)
def test_fields_known_under_another_name_or_of_a_fork(text: str, said: str) -> None:
    message = refused_text(f'layer {{ name: "l" type: "X" {text} }}')
    assert said in message
    assert "foo" not in text or "mean" not in message


def test_what_a_field_is_renamed_to_exists() -> None:
    from imae.prototxt_like import schema

    for (message, field), (name, _) in RENAMED_FIELDS.items():
        fields = getattr(schema, message).DESCRIPTOR.fields_by_name
        assert name in fields
        assert field not in fields


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("mutlistep", 'did you mean "multistep"?'),
        ("multi_step", 'did you mean "multistep"?'),
        ("Step", 'did you mean "step"?'),
        ("cosine", "known are exp, "),
        ("multifixed", "known are exp, "),
    ],
)
def test_policies(policy: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        check_policy(SolverParameter(lr_policy=policy))
    assert str(error.value).startswith(f'solver: unknown lr_policy "{policy}"; {said}')
