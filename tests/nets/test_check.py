"""What `check_net` says of a net: what it has, what fits, and what stands in the way of which use."""

from pathlib import Path

import numpy as np
import pytest

from imae.layers.layer import TEST, TRAIN
from imae.nets.check import NetCheck, check_net
from imae.nets.net import Net
from imae.prototxt_like.binary import array_to_blob, write_caffemodel
from imae.prototxt_like.schema import NetParameter
from imae.prototxt_like.text import parse_net

DATA = """
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  data_param { source: "train_lmdb" batch_size: 4 backend: LMDB } %s }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  data_param { source: "test_lmdb" batch_size: 2 backend: LMDB } %s }
"""
BODY = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 5 kernel_size: 3 } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 7 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
NORMALIZE = """
layer { name: "normal" type: "Reorg" bottom: "conv" top: "conv" reorg_param { stride: 2 } }
"""
INPUT = """
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 4 dim: 3 dim: 6 dim: 6 } shape { dim: 4 } } }
"""
CROPPED = "transform_param { crop_size: 6 }"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(text: str, phase: int = TRAIN, weights: str | None = None, **options: object) -> NetCheck:
    Path("net.prototxt").write_text(text)
    return check_net("net.prototxt", phase, weights, **options)  # type: ignore[arg-type]


def written(text: str) -> str:
    Net(parse_net(text), TEST).write_weights("w.caffemodel")
    return "w.caffemodel"


def test_a_sound_net_is_what_net_builds() -> None:
    found, net = check(INPUT + BODY), Net(parse_net(INPUT + BODY), TRAIN)
    assert {top: shape for layer in found.layers for top, shape in zip(layer.tops, layer.shapes, strict=True)} == {
        name: net.shape(name) for name in net.newest
    }
    assert [layer.parameters for layer in found.layers] == [0, 5 * 3 * 9 + 5, 0, 7 * 5 * 16 + 7, 0]
    assert (found.parameters, found.fixed) == (140 + 567, 5 + 5 + 1)
    assert found.training.possible and found.export.possible and not found.obstacles


def test_absent_data_is_named_and_followed_by_crop_size_or_a_given_shape() -> None:
    found = check(DATA % ("", "") + BODY)
    assert [layer.needs for layer in found.layers] == ["train_lmdb", "", "", "", ""]
    assert all(layer.parameters is None for layer in found.layers)
    assert (found.training.possible, found.training.reasons) == (None, ["needs train_lmdb"])
    assert (found.export.possible, found.export.reasons) == (None, ["needs test_lmdb"])
    assert not found.obstacles
    for cropped, options in ((CROPPED, {}), ("", {"shape": (3, 6, 6)})):
        for phase, batch in ((TRAIN, 4), (TEST, 2)):
            found = check(DATA % (cropped, cropped) + BODY, phase, **options)
            assert [layer.shapes for layer in found.layers[:2]] == [[(batch, 3, 6, 6), (batch,)], [(batch, 5, 4, 4)]]
            assert found.layers[0].taken_from
            assert found.parameters == 707
            assert (found.training.possible, found.training.reasons) == (True, ["needs train_lmdb"])
            assert (found.export.possible, found.export.reasons) == (True, ["needs test_lmdb"])
            assert not found.obstacles


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ('"ImageData" image_data_param { source: "l" batch_size: 2 new_height: 5 new_width: 4 }', (2, 3, 5, 4)),
        ('"ImageData" image_data_param { source: "l" batch_size: 2 is_color: false } ' + CROPPED, (2, 1, 6, 6)),
        ('"WindowData" window_data_param { source: "l" batch_size: 2 } ' + CROPPED, (2, 3, 6, 6)),
        (
            '"Data" data_param { source: "l" batch_size: 2 } transform_param { crop_size: 6 force_gray: true }',
            (2, 1, 6, 6),
        ),
        ('"Cifar10Data" cifar10_data_param { source: "l" batch_size: 2 pad: 4 }', (2, 3, 40, 40)),
        ('"HDF5Data" hdf5_data_param { source: "l" batch_size: 2 }', None),
        ('"ImageData" image_data_param { source: "l" batch_size: 2 }', None),
    ],
)
def test_what_data_layers_settings_tell_of_their_shape(layer: str, shape: tuple[int, ...] | None) -> None:
    found = check(f'layer {{ name: "d" top: "x" top: "y" type: {layer} }}')
    assert found.layers[0].needs == "l"
    assert found.layers[0].shapes == ([shape, shape[:1]] if shape else [None, None])


def test_all_that_is_foreign_is_listed_and_the_rest_followed() -> None:
    text = INPUT + BODY.replace('layer { name: "ip"', NORMALIZE + 'layer { name: "ip"')
    text += 'layer { name: "x" type: "ReLu" bottom: "label" top: "x" }'
    text += 'layer { name: "y" type: "Power" bottom: "z" top: "y" }'
    found = check(text)
    assert [layer.whose for layer in found.layers if layer.whose] == ["YOLO"]
    assert [layer.name for layer in found.layers if layer.fault] == ["normal", "x", "y"]
    assert [layer.name for layer in found.layers if layer.parameters is None] == ["normal", "ip", "loss", "x", "y"]
    assert found.parameters == 140
    assert len(found.obstacles) == 4
    assert found.unknown_names == found.obstacles[:1]
    assert '"reorg_param" is no field of LayerParameter; it is of YOLO\'s Caffe' in found.obstacles[0]
    assert found.obstacles[1] == 'layer "normal": the layer type "Reorg" is of YOLO\'s Caffe, not of BVLC\'s'
    assert 'unknown layer type "ReLu"; did you mean "ReLU"?' in found.obstacles[2]
    assert 'no layer before it produces its bottom "z"' in found.obstacles[3]
    assert found.training.possible is found.export.possible is False


def test_weights_are_compared_layer_by_layer() -> None:
    smaller = BODY.replace("num_output: 7", "num_output: 6").replace('name: "conv"', 'name: "other"')
    found = check(INPUT + BODY, weights=written(INPUT + smaller))
    _, conv, norm, ip, loss = (layer.weights for layer in found.layers)
    assert (conv, norm, loss) == ("missing", "match", "")
    assert ip.startswith('layer "ip": blob 0 is 7x80, w.caffemodel has 6x80')
    assert found.left_over == ["other"]
    assert found.obstacles == [ip]
    found = check(INPUT + BODY, weights=written(INPUT + BODY.replace('name: "conv"', 'name: "other"')))
    assert (found.training.possible, found.export.possible) == (True, False)
    assert found.obstacles == ["the weights lack the layers conv"]
    found = check(INPUT + BODY, weights=written(INPUT + BODY))
    assert not found.obstacles and not found.left_over


def test_weights_of_a_layer_that_cannot_be_built_are_not_left_over() -> None:
    source = NetParameter(layer=[{"name": name, "blobs": [array_to_blob(np.ones(3))]} for name in ("normal", "no")])
    write_caffemodel(source, "w.caffemodel")
    assert check(INPUT + BODY + NORMALIZE, weights="w.caffemodel").left_over == ["no"]


FIXED = "param { lr_mult: 0 } param { lr_mult: 0 }"
SHARED = 'param { name: "w" }'


def with_params(params: str) -> str:
    """The net with these settings of the blobs of its convolution and its inner product."""
    return INPUT + BODY.replace("convolution_param", f"{params} convolution_param").replace(
        "inner_product_param", f"{params} inner_product_param"
    )


def test_a_net_that_only_predicts_has_nothing_in_its_way_but_a_loss() -> None:
    found = check(INPUT + BODY.replace("SoftmaxWithLoss", "Softmax").replace('bottom: "label" ', ""))
    assert (found.training.possible, found.training.reasons) == (False, ["no layer of it is a loss"])
    assert found.export.possible and not found.obstacles


def test_a_net_that_learns_nothing_cannot_be_trained() -> None:
    found = check(with_params(FIXED))
    assert found.training.reasons == ["nothing that learns leads to its loss"]
    assert (found.parameters, found.fixed) == (0, 718)


def test_a_layer_without_the_derivative_it_is_asked_for_stands_in_the_way_of_training() -> None:
    labels = 'layer { name: "r" type: "Reduction" bottom: "ip" top: "labels" reduction_param { axis: 1 } }'
    body = BODY.replace('bottom: "label"', 'bottom: "labels"').replace(
        'layer { name: "loss"', f'{labels}\n  layer {{ name: "loss"'
    )
    found = check(INPUT + body)
    assert found.training.possible is False
    assert found.obstacles[0].startswith('layer "loss" (SoftmaxWithLoss): has no derivative by its bottom "labels"')


def test_parameters_that_cannot_be_shared_are_in_the_way() -> None:
    found = check(with_params(SHARED))
    assert 'cannot share param "w"' in found.obstacles[0]
    assert found.training.possible is found.export.possible is False


def test_a_layer_without_onnx_form_stands_in_the_way_of_export() -> None:
    Path("m.py").write_text(
        "import caffe\nclass L(caffe.Layer):\n def setup(self, bottom, top): pass\n"
        " def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)\n"
    )
    python = 'layer { name: "py" type: "Python" bottom: "ip" top: "py" python_param { module: "m" layer: "L" } }'
    found = check(INPUT + BODY + python, allow_python=True)
    assert (found.training.possible, found.export.possible) == (True, False)
    assert found.obstacles == found.export.obstacles
    assert all('layer "py" (Python)' in reason for reason in found.obstacles)
    assert any("--allow-python" in obstacle for obstacle in check(INPUT + BODY + python).obstacles)


def test_a_net_without_data_for_testing_is_still_trained() -> None:
    for_training = 'top: "label" include { phase: TRAIN }'
    found = check(INPUT.replace('top: "label"', for_training) + BODY)
    assert found.training.possible
    assert (found.export.possible, found.export.reasons) == (False, ["phase TEST has no data"])
    assert not found.obstacles


def test_a_wrong_count_is_found_where_shapes_cannot_be_followed() -> None:
    found = check(DATA % ("", "") + BODY.replace('bottom: "ip" bottom: "label"', 'bottom: "ip"'))
    assert found.obstacles == [
        'layer "loss" (SoftmaxWithLoss): takes 2 bottom blobs, the prototxt gives 1',
    ]


def test_stages_choose_layers_for_both_verdicts() -> None:
    staged = BODY.replace('bottom: "label" top: "loss"', 'bottom: "label" top: "loss" include { stage: "s" }').replace(
        "inner_product_param", 'include { stage: "s" } inner_product_param'
    )
    found = check(INPUT + staged, stages=["s"])
    assert [layer.name for layer in found.layers] == ["data", "conv", "bn", "ip", "loss"]
    assert found.training.possible and found.export.possible
    assert not check(INPUT + staged).training.possible
