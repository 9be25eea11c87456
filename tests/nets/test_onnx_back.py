"""Back from ONNX: what the export says of its nodes, and models that prepare their images."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.nets.onnx_import import ImportReport, import_onnx
from imae.nets.onnx_preprocess import ImageOptions
from imae.nets.zoo import NETS, build
from imae.prototxt_like.binary import write_binaryproto
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, NetParameter
from imae.prototxt_like.text import parse_net


def imported(net: Net, folder: Path, **settings: object) -> tuple[ImportReport, Net]:
    export_onnx(net, None, folder / "net.onnx", **settings)  # type: ignore[arg-type]
    report = import_onnx(folder / "net.onnx", folder / "back")
    again = Net(report.prototxt, TEST, backward=False)
    assert again.copy_weights(report.caffemodel).kept == []
    return report, again


PROPOSAL = """
layer { name: "a" type: "Input" top: "cls" top: "box" top: "info"
  input_param { shape { dim: [1, 18, 5, 6] } shape { dim: [1, 36, 5, 6] } shape { dim: [1, 3] } } }
layer { name: "p" type: "Proposal" bottom: "cls" bottom: "box" bottom: "info" top: "r" top: "s"
  proposal_param { min_size: 8 post_nms_topn: 20 } }"""
DETECTION = """
layer { name: "a" type: "Input" top: "loc" top: "conf" top: "prior"
  input_param { shape { dim: [1, 24] } shape { dim: [1, 18] } shape { dim: [1, 2, 24] } } }
layer { name: "d" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "prior" top: "out"
  detection_output_param { num_classes: 3 code_type: CENTER_SIZE keep_top_k: 5
    nms_param { nms_threshold: 0.4 top_k: 4 } } }"""
MASK = """
layer { name: "a" type: "Input" top: "x" input_param { shape { dim: [1, 3, 6, 6] } } }
layer { name: "p" type: "Pooling" bottom: "x" top: "p" top: "m" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "u" type: "Upsample" bottom: "p" bottom: "m" top: "u" upsample_param { scale: 2 } }
layer { name: "s" type: "Pooling" bottom: "x" top: "s" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 } }"""

REGIONS = """
layer { name: "a" type: "Input" top: "x" top: "r" input_param { shape { dim: [1, 18, 6, 8] } shape { dim: [4, 5] } } }
layer { name: "p" type: "PSROIPooling" bottom: "x" bottom: "r" top: "y"
  psroi_pooling_param { spatial_scale: 0.5 output_dim: 2 group_size: 3 } }"""


@pytest.mark.parametrize("text", [PROPOSAL, DETECTION, MASK, REGIONS])
@pytest.mark.parametrize("opset", [13, None])
def test_layers_of_many_nodes_come_back_as_themselves(text: str, opset: int | None, tmp_path: Path) -> None:
    net = Net(parse_net(text), TEST, backward=False)
    report, again = imported(net, tmp_path, opset=opset)
    first, second = ([layer for layer in of.param.layer if layer.type != "Input"] for of in (net, again))
    for before, after in zip(first, second, strict=True):
        after.name = before.name
        assert after == before
    assert report.difference < 1e-5 and not report.undecided


def an_attribute(graph: onnx.GraphProto) -> None:
    next(node for node in graph.node if node.op_type == "TopK").attribute.append(helper.make_attribute("sorted", 1))


def a_constant(graph: onnx.GraphProto) -> None:
    limit = next(node for node in graph.node if node.op_type == "NonMaxSuppression").input[3]
    next(tensor for tensor in graph.initializer if tensor.name == limit).raw_data = np.float32(0.9).tobytes()


def what_goes_where(graph: onnx.GraphProto) -> None:
    node = next(node for node in graph.node if node.op_type == "Sub")
    node.input[:] = node.input[::-1]


def the_text(graph: onnx.GraphProto) -> None:
    (node,) = (node for node in graph.node if node.doc_string)
    node.doc_string = node.doc_string.replace("keep_top_k: 5", "keep_top_k: 6")


def another_reader(graph: onnx.GraphProto) -> None:
    name = next(node for node in graph.node if node.op_type == "NonMaxSuppression").input[1]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


@pytest.mark.parametrize("change", [an_attribute, a_constant, what_goes_where, the_text, another_reader])
def test_a_layer_changed_by_hand_is_told_and_not_taken(
    change: Callable[[onnx.GraphProto], None], tmp_path: Path
) -> None:
    export_onnx(Net(parse_net(DETECTION), TEST, backward=False), None, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    change(model.graph)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(InputError, match=r'begins layer "d" \(DetectionOutput\), but what follows is not what'):
        import_onnx(tmp_path / "net.onnx", tmp_path / "back")
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_names_may_change(tmp_path: Path) -> None:
    export_onnx(Net(parse_net(DETECTION), TEST, backward=False), None, tmp_path / "net.onnx")
    model = onnx.compose.add_prefix(onnx.load(tmp_path / "net.onnx"), "of/")
    onnx.save(model, tmp_path / "net.onnx")
    layer = Net(import_onnx(tmp_path / "net.onnx", tmp_path / "back").prototxt, TEST).param.layer[-1]
    assert layer.type == "DetectionOutput" and layer.bottom == ["of/loc", "of/conf", "of/prior"]


def small_ssd() -> NetParameter:
    """SSD300 with a 32nd of the channels."""
    from imae.nets.zoo.ssd import ssd300

    param = ssd300(classes=3)
    for layer in param.layer:
        if layer.type == "Convolution" and "mbox" not in layer.name:
            layer.convolution_param.num_output //= 32
        layer.convolution_param.weight_filler.type = "msra"
    return param


def test_ssd_comes_back(tmp_path: Path) -> None:
    net = Net(small_ssd(), TEST, backward=False)
    report, again = imported(net, tmp_path)
    assert report.difference < 1e-4
    x = torch.randn(1, 3, 300, 300) * 50
    expected, actual = net.forward(data=x)["detection_out"], again.forward(data=x)["detection_out"]
    assert len(expected[0, 0]) > 100
    torch.testing.assert_close(actual, expected)


CONVOLUTION = """
layer { name: "a" type: "Input" top: "x" input_param { shape { dim: [1, 3, 6, 8] } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 2 kernel_size: 3
  weight_filler { type: "xavier" } } }"""


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (6, 8)),
        ({"channels": "RGB"}, (6, 8)),
        ({"channels": "BGR", "mean": "104,117.5,123", "scale": 0.017, "resize": (9, 10)}, (7, 13)),
        ({"mean": "mean.binaryproto", "channels": "BGR"}, (8, 8)),
        ({"mean": "128", "resize": (6, 8)}, (11, 5)),
    ],
)
def test_a_model_that_prepares_images_comes_back_with_the_options_that_do(
    options: dict[str, object], shape: tuple[int, int], tmp_path: Path
) -> None:
    if "mean.binaryproto" in options.values():
        mean = tmp_path / "mean.binaryproto"
        write_binaryproto(np.random.default_rng(0).uniform(90, 130, (1, 3, 8, 8)).astype(np.float32), mean)
        options = options | {"mean": str(mean)}
    net = Net(parse_net(CONVOLUTION), TEST, backward=False)
    report, again = imported(net, tmp_path, preprocess=ImageOptions(**options))  # type: ignore[arg-type]
    assert report.difference < 1e-5 and again.inputs == ["x"]
    assert report.prototxt.read_text().startswith(f'# Input "x": {report.images["x"]}\n')
    said = dict(re.findall(r"--(\w+) (\S+)", report.images["x"]))
    given = ImageOptions(
        (int(said["resize"][0]), int(said["resize"][2:])) if "resize" in said else None,
        said.get("channels", ""),
        said.get("mean", ""),
        float(said["scale"]) if "scale" in said else None,
    )
    export_onnx(again, None, tmp_path / "again.onnx", preprocess=given)
    images = np.random.default_rng(0).integers(256, size=(1, *shape, 3), dtype=np.uint8)
    expected, actual = (
        onnxruntime.InferenceSession(tmp_path / file).run(["c"], {"x": images})[0]
        for file in ("net.onnx", "again.onnx")
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


def test_a_window_cut_out_of_any_image_is_told(tmp_path: Path) -> None:
    text = """
    layer { name: "a" type: "ImageData" top: "x" top: "y" transform_param { crop_size: 6 mean_value: 100 scale: 0.5 }
      image_data_param { source: "list.txt" batch_size: 1 } }
    layer { name: "c" type: "InnerProduct" bottom: "x" top: "c" inner_product_param { num_output: 2 } }"""
    weights = NetParameter(layer=[{"name": "c", "blobs": [{"data": [0.01] * 216}, {"data": [0, 1]}]}])
    weights.layer[0].blobs[0].shape.dim[:], weights.layer[0].blobs[1].shape.dim[:] = (2, 108), (2,)
    export_onnx(parse_net(text), weights, tmp_path / "net.onnx", shape=(3, 6, 6), preprocess=True)
    report = import_onnx(tmp_path / "net.onnx", tmp_path / "back")
    assert report.images["x"] == (
        "images, cut to 6x6 in their centre, as `imae predict` and `imae export --preprocess` prepare them by "
        "--mean 100 --channels BGR --scale 0.5"
    )
    assert report.difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETS if name != "fcn8s"])  # which takes 18 GB
def test_well_known_nets_come_back(name: str, tmp_path: Path) -> None:
    net = Net(build(name, batch=1), TEST, backward=False)
    net.keep_blobs = False
    assert imported(net, tmp_path)[0].difference < 1e-4
