"""The comparison of an exported model with its net: what it finds, what it says, and what folding must keep."""

import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from imae.nets.digits_net import digits_net
from imae.nets.net import Net
from imae.nets.onnx_export import OnnxReport, compare_with_onnxruntime, export_onnx
from imae.nets.onnx_preprocess import ImageOptions
from imae.nets.onnx_verify import draw_pixels, verify
from imae.prototxt_like.binary import array_to_blob
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net


def with_weights(net: Net) -> Net:
    generator = torch.Generator().manual_seed(1)
    for step in net.steps:
        for blob in step.layer.blobs:
            blob.data.normal_(0, 0.3, generator=generator)
            if step.layer.type == "BatchNorm":
                blob.data.abs_().add_(0.5)
    return net


@pytest.fixture
def digits() -> Net:
    return with_weights(Net(digits_net("imae"), backward=False))


def chain(layers: int) -> str:
    """TanH after TanH, from x to y1 and on."""
    names = ["x", *(f"y{i}" for i in range(1, layers + 1))]
    return " ".join(
        f'layer {{ name: "{top}" type: "TanH" bottom: "{bottom}" top: "{top}" }}' for bottom, top in pairwise(names)
    )


def damage(report: OnnxReport, name: str) -> None:
    """Change one weight a little."""
    model = onnx.load(report.path)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            values = numpy_helper.to_array(tensor).copy()
            values.flat[0] += 0.01
            tensor.CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, report.path)


def test_the_line_tells_what_was_fed_and_how_far_apart_the_outputs_are(digits: Net, tmp_path: Path) -> None:
    report = export_onnx(digits, None, tmp_path / "net.onnx")
    verification = verify(report, digits)
    assert 0 < verification.difference < 1e-5
    said = str(verification)
    assert "5 runs on random, zero, large, larger random, its own data as input" in said
    assert said.count("\n") == 0


@pytest.mark.parametrize("fold", [True, False])
def test_a_difference_is_an_error_that_names_the_first_blob_and_removes_nothing(
    digits: Net, fold: bool, tmp_path: Path
) -> None:
    report = export_onnx(digits, None, tmp_path / "net.onnx", fold_channels=fold)
    nodes = onnx.load(report.path).graph.node
    reader = next(node for node in nodes if node.name == "block1_conv1/block1_conv1/Conv")
    damage(report, reader.input[1])
    with pytest.raises(InputError) as error:
        verify(report, digits)
    assert 'its output "prob" differs' in str(error.value)
    assert 'the first blob that differs is "block1_conv1"' in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_of_a_batch_that_differs_as_few_are_looked_at_as_show_it(tmp_path: Path) -> None:
    net = Net(parse_net(f'input: "x" input_shape {{ dim: 1 dim: 2 }} {chain(2)}'), backward=False)
    report = export_onnx(net, None, tmp_path / "net.onnx")
    model = onnx.load(report.path)
    model.graph.node[1].output[0] = "all"
    # rows from the third on lose their first number
    model.graph.node.append(onnx.helper.make_node("Trilu", ["all", "k"], ["y2"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(-1), "k"))
    onnx.save(model, report.path)
    looked = []
    layer = report.net.steps[1].layer
    forward = layer.forward
    layer.forward = lambda bottoms, saved: looked.append(len(bottoms[0])) or forward(bottoms, saved)
    with pytest.raises(InputError, match=r'\(x 6x2\); the first blob that differs is "y2" of layer "y2"'):
        verify(report, net, batches=(2, 6))
    assert looked == [2, 2, 2, 6, 1, 2, 3, 3], "the cases, as many images of the last as show it, and these"


def test_the_net_stays_as_it_was(tmp_path: Path) -> None:
    net = Net(
        parse_net(
            'input: "x" input_shape { dim: 2 dim: 3 dim: 4 dim: 4 } layer { name: "y" type: "BatchNorm" bottom: "x" '
            'top: "y" batch_norm_param { use_global_stats: false } }'
        ),
        backward=False,
    )
    x = torch.randn(2, 3, 4, 4)
    net.forward(x=x)
    report = export_onnx(net, None, tmp_path / "net.onnx", dynamic=["batch", "height"])
    before = [blob.data.clone() for blob in net.params["y"]]
    shapes, passes = list(report.net.shapes), report.net.context.passes.number
    assert verify(report, net).runs == 4
    assert compare_with_onnxruntime(report.path, net, x) < 1e-5
    assert all(map(torch.equal, before, (blob.data for blob in net.params["y"])))
    assert (report.net.shapes, report.net.context.passes.number) == (shapes, passes)
    assert report.net.keep_blobs and report.net.observer is None
    net.forward(x=x)
    assert not torch.equal(before[0], net.params["y"][0].data), "what a pass of its own moves"


def test_no_more_values_are_held_than_layers_still_read(tmp_path: Path) -> None:
    net = Net(parse_net(f'input: "x" input_shape {{ dim: 1 dim: 2 }} {chain(9)}'), backward=False)
    report = export_onnx(net, None, tmp_path / "net.onnx")
    made: list[weakref.ref[torch.Tensor]] = []

    def watched(forward: Any) -> Any:
        def watch(bottoms: list[torch.Tensor], saved: Any) -> list[torch.Tensor]:
            assert sum(value() is not None for value in made) <= 2
            tops = forward(bottoms, saved)
            made.append(weakref.ref(tops[0]))
            return list(tops)

        return watch

    for step in report.net.steps[1:]:
        step.layer.forward = watched(step.layer.forward)
    assert verify(report, net).runs == 4
    assert len(made) == 4 * 9


def test_reversed_channels_are_found_on_the_nets_own_images(tmp_path: Path) -> None:
    """As it was once: noise alone let it pass."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for i in range(4):
        color = generator.integers(0, 255, 3) // [1, 2, 8]
        Image.fromarray(np.full((9, 11, 3), color, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "list.txt").write_text("".join(f"{i}.png {i}\n" for i in range(4)))
    (tmp_path / "net.prototxt").write_text(
        f'layer {{ name: "data" type: "ImageData" top: "data" top: "label" '
        f'image_data_param {{ source: "list.txt" root_folder: "{tmp_path}/" batch_size: 4 }} '
        "transform_param { mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.0078125 crop_size: 8 } }"
        'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" '
        "convolution_param { num_output: 4 kernel_size: 3 } }"
    )
    net = with_weights(Net(tmp_path / "net.prototxt", backward=False))
    report = export_onnx(net, None, tmp_path / "net.onnx", preprocess=True)
    assert report.inputs == {"data": ("N", "H", "W", 3)}
    assert verify(report, net).difference < 1e-5
    pixels = np.stack([np.asarray(Image.open(tmp_path / f"{i}.png")) for i in range(4)])
    (actual,) = onnxruntime.InferenceSession(report.path).run(None, {"data": pixels})
    np.testing.assert_allclose(actual, net.forward()["conv"], atol=1e-5)
    wrong = export_onnx(net, None, tmp_path / "net.onnx", preprocess=ImageOptions(channels="RGB"))
    with pytest.raises(InputError, match=r'its output "conv" differs .* on its own data'):
        verify(wrong, net)


def test_images_are_resized_as_the_data_layer_does_it(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (20, 15, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    (tmp_path / "list.txt").write_text("0.png 0\n")
    (tmp_path / "net.prototxt").write_text(
        f'layer {{ name: "data" type: "ImageData" top: "data" top: "label" image_data_param {{ source: "list.txt" '
        f'root_folder: "{tmp_path}/" batch_size: 1 new_height: 12 new_width: 10 }} '
        "transform_param { crop_size: 8 } }"
        'layer { name: "same" type: "Power" bottom: "data" top: "y" }'
    )
    net = Net(tmp_path / "net.prototxt", backward=False)
    report = export_onnx(net, None, tmp_path / "net.onnx", preprocess=True)
    assert report.inputs == {"data": ("N", "H", "W", 3)}
    assert verify(report, net).difference < 1e-5
    (actual,) = onnxruntime.InferenceSession(report.path).run(None, {"data": pixels[None]})
    assert np.abs(actual - net.forward()["y"].numpy()).max() <= 1, "the data layer rounds to whole levels"
    with pytest.raises(InputError, match="a mean of 20x15 does not fit images resized to 12x10"):
        (tmp_path / "mean.binaryproto").write_bytes(
            array_to_blob(pixels.transpose(2, 0, 1)[None] * 1.0).SerializeToString()
        )
        mean = str(tmp_path / "mean.binaryproto")
        export_onnx(net, None, tmp_path / "net.onnx", preprocess=ImageOptions(mean=mean))


def test_images_are_resized_cropped_and_scaled_in_the_model(tmp_path: Path) -> None:
    net = with_weights(
        Net(
            parse_net(
                'name: "deploy" input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 6 } '
                'layer { name: "c" type: "Convolution" bottom: "data" top: "c" '
                "convolution_param { num_output: 2 kernel_size: 3 } }"
            ),
            backward=False,
        )
    )
    options = ImageOptions(resize=(12, 14), channels="BGR", mean="104,117,123", scale=0.5)
    report = export_onnx(net, None, tmp_path / "net.onnx", preprocess=options)
    assert report.inputs == {"data": ("N", "H", "W", 3)}
    assert verify(report, net).difference < 1e-5
    pixels = np.random.default_rng(0).integers(0, 256, (2, 12, 14, 3), np.uint8)
    window = pixels[:, 2:10, 4:10, ::-1].astype(np.float32) - [104, 117, 123]
    expected = net.forward(data=np.moveaxis(0.5 * window, 3, 1))["c"]
    (actual,) = onnxruntime.InferenceSession(report.path).run(None, {"data": pixels})
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


FOLDED = """
input: "data" input_shape { dim: 2 dim: 4 dim: 6 dim: 6 }
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param { num_output: 6 kernel_size: 3 group: 2 } }
layer { name: "cn" type: "BatchNorm" bottom: "c" top: "c" }
layer { name: "cs" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }
layer { name: "d" type: "Deconvolution" bottom: "c" top: "d"
  convolution_param { num_output: 4 kernel_size: 2 stride: 2 group: 2 bias_term: false } }
layer { name: "ds" type: "Scale" bottom: "d" top: "ds" }
layer { name: "db" type: "Bias" bottom: "ds" top: "db" bias_param { num_axes: 0 } }
layer { name: "flat" type: "Flatten" bottom: "db" top: "flat" }
layer { name: "again" type: "Flatten" bottom: "flat" top: "again" }
layer { name: "drop" type: "Dropout" bottom: "again" top: "again" }
layer { name: "ip" type: "InnerProduct" bottom: "again" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "is" type: "Scale" bottom: "ip" top: "ip" scale_param { bias_term: true } }
layer { name: "tr" type: "InnerProduct" bottom: "ip" top: "tr" inner_product_param { num_output: 3 transpose: true } }
layer { name: "tn" type: "BatchNorm" bottom: "tr" top: "tn" }
"""


@pytest.mark.parametrize(
    ("outputs", "operators"),
    [
        (["tn"], ["Conv", "ConvTranspose", "Reshape", "Gemm", "Gemm"]),
        (["ds", "ip", "tn"], ["Conv", "ConvTranspose", "Add", "Reshape", "Gemm", "Gemm"]),
    ],
)
def test_channels_fold_into_the_layer_before_unless_something_else_reads_it(
    outputs: list[str], operators: list[str], tmp_path: Path
) -> None:
    net = with_weights(Net(parse_net(FOLDED), backward=False))
    report = export_onnx(net, None, tmp_path / "net.onnx", outputs=outputs)
    assert [node.op_type for node in onnx.load(report.path).graph.node] == operators
    assert verify(report, net).difference < 1e-5
    plain = export_onnx(net, None, tmp_path / "plain.onnx", outputs=outputs, fold_channels=False)
    assert plain.nodes > report.nodes
    assert verify(plain, net).difference < 1e-5


def test_a_python_layer_adds_its_own_nodes_or_is_refused(tmp_path: Path) -> None:
    (tmp_path / "halves.py").write_text(
        "import caffe, numpy\n"
        "class Half(caffe.Layer):\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)\n"
        "    def forward(self, bottom, top): top[0].data[...] = bottom[0].data / 2\n"
        "class Exported(Half):\n"
        "    def to_onnx(self, graph, bottoms, tops):\n"
        "        graph.node('Mul', [bottoms[0], graph.constant('half', numpy.float32(0.5))], tops)\n"
    )

    def net(name: str) -> Net:
        text = 'input: "x" input_shape { dim: 2 dim: 3 } layer { name: "half" type: "Python" bottom: "x" top: "y" '
        text += f'python_param {{ module: "halves" layer: "{name}" }} }}'
        return Net(parse_net(text), folder=tmp_path, allow_python=True, backward=False)

    report = export_onnx(net("Exported"), None, tmp_path / "net.onnx")
    assert verify(report, net("Exported")).difference == 0
    with pytest.raises(InputError, match=r'layer "half" .Python.: has no ONNX form, as its class Half'):
        export_onnx(net("Half"), None, tmp_path / "other.onnx")
    assert not (tmp_path / "other.onnx").exists()


def test_what_the_model_says_of_itself(digits: Net, tmp_path: Path) -> None:
    import hashlib
    import json

    from imae import __version__

    digits.write_weights(tmp_path / "digits.caffemodel")
    path = tmp_path / "net.onnx"
    export_onnx(digits, tmp_path / "digits.caffemodel", path, labels=list("0123456789"), preprocess=True)
    metadata = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert (metadata["imae.version"], metadata["imae.net"]) == (__version__, "digits")
    assert json.loads(metadata["imae.labels"]) == list("0123456789")
    digest = hashlib.sha256((tmp_path / "digits.caffemodel").read_bytes()).hexdigest()
    assert json.loads(metadata["imae.sources"]) == {"digits.caffemodel": digest}
    images = json.loads(metadata["imae.images"])
    assert images == {"data": {"layout": "NHWC", "type": "uint8", "channels": "gray", "window": [8, 8]}}


def test_where_rounding_alone_decides_a_difference_is_no_error_but_said(tmp_path: Path) -> None:
    """MVN makes of an image of one color whatever rounding left of it."""
    text = 'input: "data" input_shape { dim: 2 dim: 3 dim: 13 dim: 13 } '
    text += 'layer { name: "c" type: "Convolution" bottom: "data" top: "c" '
    text += "convolution_param { num_output: 4 kernel_size: 3 } } "
    text += 'layer { name: "m" type: "MVN" bottom: "c" top: "m" }'
    net = with_weights(Net(parse_net(text), backward=False))
    report = export_onnx(net, None, tmp_path / "net.onnx")
    verification = verify(report, net)
    assert verification.difference < 1e-4
    assert set(verification.undecided) <= {"zero"}
    assert ("(but for zero by " in str(verification)) == bool(verification.undecided)
    model = onnx.load(report.path)
    assert model.graph.node[-1].op_type == "Div"
    model.graph.node[-1].op_type = "Mul"
    onnx.save(model, report.path)
    with pytest.raises(InputError, match=r'"m" differs .* on random input'):
        verify(report, net)


ROUNDED = [
    ("dim: 3 dim: 4", 'type: "BatchNorm" batch_norm_param { use_global_stats: false }', ImageOptions(resize=(9, 9))),
    ("dim: 3 dim: 4", 'type: "MVN"', ImageOptions(resize=(9, 9))),
    ("", 'type: "Swish"', None),
    ("", 'type: "Sigmoid"', None),
]


@pytest.mark.parametrize(("size", "layer", "preprocess"), ROUNDED)
def test_what_rounding_leaves_of_flat_images_and_of_tiny_numbers_is_no_error(
    size: str, layer: str, preprocess: ImageOptions | None, tmp_path: Path
) -> None:
    """ONNX Runtime resizes a white image to 255.00002, and takes the sigmoid of -100 for 0, or for that of -18."""
    text = f'name: "n" input: "data" input_shape {{ dim: 1 {size and size + " dim: 4"} }} '
    net = Net(parse_net(text + f'layer {{ name: "l" {layer} bottom: "data" top: "y" }}'), backward=False)
    report = export_onnx(net, None, tmp_path / "net.onnx", preprocess=preprocess or False)
    found = verify(report, net)
    assert found.difference < 1e-4
    assert set(found.undecided) <= {"zero", "large"}


def test_random_pixels_have_contrasts_of_all_sizes() -> None:
    """So that a net's averages differ from image to image, and from channel to channel."""
    pixels = draw_pixels((3, 3, 224, 100), torch.Generator().manual_seed(0))
    assert (pixels == pixels.round()).all() and 0 <= pixels.min() < 20 and 235 < pixels.max() <= 255
    assert pixels.mean((2, 3)).std() > 10
    assert 20 < (pixels - F.avg_pool2d(pixels, 9, 1, 4)).std() < 60
    assert draw_pixels((1, 1, 1, 2), torch.Generator(), "large").tolist() == [[[[255, 255]]]]
