"""The options of `imae export`, as a user sees them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from imae.nets.deploy import deploy
from imae.nets.net import Net
from imae.nets.state import with_stages
from imae.prototxt_like.binary import write_caffemodel
from imae.prototxt_like.text import read_net

Imae = Callable[..., Any]
COMMAND = ("export", "--model", "deploy.prototxt", "--weights", "net.caffemodel", "--output", "net.onnx")


@pytest.fixture
def deployed(digits: Path) -> Path:
    """A net of two inputs, of which the second has no images."""
    (digits / "deploy.prototxt").write_text("""
    name: "deployed"
    layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
      convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
    layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" batch_norm_param { eps: 1 } }
    layer { name: "pool" type: "Pooling" bottom: "conv" top: "prob" pooling_param { pool: AVE global_pooling: true } }
    """)
    write_caffemodel(Net(digits / "deploy.prototxt").to_proto(), digits / "net.caffemodel")
    return digits


def inputs() -> dict[str, list[int | str]]:
    graph = onnx.load("net.onnx").graph
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.input
    }


def test_sizes_opsets_and_folding_are_as_asked(imae: Imae, deployed: Path) -> None:
    assert imae(*COMMAND).status == 0
    assert inputs() == {"data": ["N", 3, 8, 8]}
    assert [node.op_type for node in onnx.load("net.onnx").graph.node] == ["Conv", "GlobalAveragePool"]
    assert imae(*COMMAND, "--dynamic", "batch,height,width", "--opset", "13", "--no-fold").status == 0
    assert inputs() == {"data": ["N", 3, "H", "W"]}
    model = onnx.load("net.onnx")
    assert model.opset_import[0].version == 13
    assert [node.op_type for node in model.graph.node] == ["Conv", "BatchNormalization", "GlobalAveragePool"]
    assert imae(*COMMAND, "--dynamic", "none", "--shape", "data=1x3x9x11").status == 0
    assert inputs() == {"data": [1, 3, 9, 11]}


def test_images_and_labels_go_into_the_model(imae: Imae, deployed: Path) -> None:
    Path("labels.txt").write_text("ape\nbee\ncat\ndog\n")
    prepared = ("--preprocess", "--mean", "104,117,123", "--scale", "0.02", "--channels", "BGR", "--resize", "10x12")
    outcome = imae(*COMMAND, *prepared, "--labels", "labels.txt")
    assert outcome.status == 0
    assert "input data: NxHxWx3\n" in outcome.out
    assert "data takes uint8 images, channels RGB\n" in outcome.out
    found = re.search(r"Largest difference .*: (\S+)$", outcome.out)
    assert found and float(found[1]) < 1e-5
    session = onnxruntime.InferenceSession("net.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["imae.labels"]) == ["ape", "bee", "cat", "dog"]
    assert session.run(None, {"data": np.zeros((2, 30, 20, 3), np.uint8)})[0].shape == (2, 4, 1, 1)


@pytest.mark.parametrize("more", [("--precision", "fp16"), ("--precision", "int8")])
def test_a_model_in_fewer_bits_is_compared_before_and_after(imae: Imae, deployed: Path, more: tuple[str, ...]) -> None:
    outcome = imae(*COMMAND, "--opset", "17", *more)
    assert outcome.status == 0
    assert outcome.out.count("Largest difference") == 2
    assert f"Made it {more[1]}: " in outcome.out


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--shape", "label=1x2"), 1, 'no shape can be given to "label"'),
        (("--shape", "data=1x2x8x8"), 1, 'layer "conv"'),
        (("--dynamic", "depth"), 1, '"depth" is no size that can stay open'),
        (("--opset", "12"), 1, "opset must be 13 to "),
        (("--labels", "gone.txt"), 1, "gone.txt: cannot be read"),
        (("--labels", "deploy.prototxt"), 1, "each line"),
        (("--labels", "two.txt"), 1, "2 labels do not fit its outputs: prob 2x4x1x1"),
        (("--preprocess", "--mean", "gone.binaryproto"), 1, "gone.binaryproto"),
        (("--preprocess", "--mean", "1,2"), 1, "the mean, 2x1x1, does not fit images of 3x8x8"),
        (("--preprocess", "--scale", "0"), 1, "must be a number other than 0"),
        (("--preprocess", "--resize", "4x4"), 1, "images of 4x4 are smaller than the net's, 8x8"),
        (("--precision", "int8", "--calibration", "gone"), 1, "gone: is no folder"),
        (("--resize", "4x4"), 2, "--resize goes with --preprocess"),
        (("--preprocess", "--resize", "4"), 2, "--resize takes HxW"),
        (("--preprocess", "--channels", "rgba"), 2, "--channels takes RGB or BGR"),
        (("--preprocess", "--include-transform"), 2, "give one of them"),
        (("--precision", "int4"), 2, "--precision takes fp32, fp16 or int8"),
        (("--calibration", "gone"), 2, "--calibration goes with --precision int8"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(
    imae: Imae, deployed: Path, options: tuple[str, ...], status: int, said: str
) -> None:
    Path("two.txt").write_text("ape\nbee\n")
    outcome = imae(*COMMAND, *options)
    assert outcome.status == status
    assert said in " ".join(outcome.err.replace("│", " ").split())
    assert status == 2 or outcome.err.count("\n") == 1
    assert not Path("net.onnx").exists()


def test_a_batch_that_a_layer_ties_is_fixed_with_a_line_that_says_so(imae: Imae, deployed: Path) -> None:
    Path("deploy.prototxt").write_text("""
    layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "tied" type: "Scale" bottom: "data" top: "y" scale_param { axis: 0 } }
    """)
    write_caffemodel(Net("deploy.prototxt").to_proto(), "net.caffemodel")
    outcome = imae(*COMMAND)
    assert outcome.status == 0
    assert "input data: 2x3\n" in outcome.out
    assert 'The batch is fixed: layer "tied" (Scale): ' in outcome.out
    assert "Largest difference" in outcome.out


def test_a_model_that_onnx_runtime_cannot_load_is_an_error_that_leaves_it(
    imae: Imae, deployed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such\nopset")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    outcome = imae(*COMMAND, "--opset", "17")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert "cannot load it, perhaps by an older --opset: no such opset" in outcome.err
    assert Path("net.onnx").exists()


def test_stages_choose_layers_as_in_nets_of_digits(imae: Imae, digits: Path) -> None:
    """NVIDIA's DIGITS has the nets that train, validate and predict in one file, by stages."""
    (digits / "deploy.prototxt").write_text("""
    name: "all in one"
    layer { name: "train-data" type: "Data" top: "data" top: "label" include { stage: "train" }
      data_param { source: "gone" batch_size: 4 } }
    layer { name: "val-data" type: "Data" top: "data" top: "label" include { stage: "val" }
      transform_param { scale: 0.5 } data_param { source: "gone" batch_size: 4 } }
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3
      weight_filler { type: "gaussian" std: 0.1 } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" exclude { stage: "deploy" } }
    layer { name: "softmax" type: "Softmax" bottom: "ip" top: "softmax" include { stage: "deploy" } }
    """)
    net = Net(deploy(with_stages(read_net(digits / "deploy.prototxt"), ["val"]), shape=(1, 4, 4)))
    write_caffemodel(net.to_proto(), digits / "net.caffemodel")
    assert imae(*COMMAND, "--stage", "val", "--shape", "1x4x4", "--include-transform").status == 0
    assert inputs() == {"data": ["N", 1, 4, 4]}
    images = np.random.default_rng(0).uniform(0, 255, (2, 1, 4, 4)).astype(np.float32)
    net.forward(data=images * np.float32(0.5))
    (found,) = onnxruntime.InferenceSession("net.onnx").run(None, {"data": images})
    np.testing.assert_allclose(found, net.blobs["prob"].numpy(), atol=1e-6)
    outcome = imae(*COMMAND, "--stage", "vla", "--shape", "1x4x4")
    assert (outcome.status, 'stage "vla"' in outcome.err) == (1, True), outcome.err
    picture = digits / "picture.png"
    Image.fromarray(images[0, 0].astype(np.uint8)).save(picture)
    common = ("--weights", "net.caffemodel", "--stage", "val", "--shape", "1x4x4")
    assert imae("predict", "deploy.prototxt", picture, *common).status == 0
    assert imae("predict", "net.onnx", picture, "--stage", "val").status == 1
