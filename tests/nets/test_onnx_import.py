"""Back from ONNX: what is imported computes what was exported, and what has no layer is named."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from imae.nets.deploy import deploy
from imae.nets.digits_net import digits_net
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.nets.onnx_import import import_onnx
from imae.nets.resnet_cifar import resnet_cifar
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST
from imae.prototxt_like.text import parse_net

RANDOM = np.random.default_rng(0)


def there_and_back(net: Net, folder: Path, **settings: Any) -> Net:
    """The net of what `import_onnx` writes of the export, which has the same outputs for a batch of another size."""
    export_onnx(net, None, folder / "net.onnx", **settings)
    report = import_onnx(folder / "net.onnx", folder / "back")
    again = Net(report.prototxt, TEST, backward=False)
    assert again.copy_weights(report.caffemodel).kept == []
    feeds: dict[str, Any] = {name: torch.randn(net.shape(name)) for name in net.inputs}
    expected, actual = net.forward(**feeds), again.forward(**feeds)
    assert expected
    for name, value in expected.items():
        assert actual[name].shape == value.shape
        assert (actual[name] - value).abs().max() <= 1e-4 * value.std()
    return again


@pytest.mark.parametrize("fold", [True, False])
def test_the_example_nets_come_back(fold: bool, tmp_path: Path) -> None:
    for param, shape in ((digits_net("imae"), (1, 8, 8)), (resnet_cifar(8, "cce"), (3, 32, 32))):
        deployed = deploy(param, shape=shape)
        deployed.layer[0].input_param.shape[0].dim[0] = 3
        net = Net(deployed, TEST, backward=False)
        for step in net.steps:
            if step.layer.type == "BatchNorm":
                for blob in step.layer.blobs:
                    blob.data.uniform_(0.5, 1.5)
        there_and_back(net, tmp_path, fold_channels=fold)


@pytest.mark.parametrize("dynamic", [(), ("batch",), ("batch", "height", "width")])
@pytest.mark.parametrize("pool", ["MAX", "AVE"])
@pytest.mark.parametrize("sizes", ["kernel_size: 3 stride: 2", "kernel_size: 3 stride: 2 pad: 1", "kernel_size: 2"])
def test_caffes_pooling_comes_back(pool: str, sizes: str, dynamic: tuple[str, ...], tmp_path: Path) -> None:
    net = Net(
        parse_net(f"""
    layer {{ name: "in" type: "Input" top: "data" input_param {{ shape {{ dim: 2 dim: 3 dim: 8 dim: 10 }} }} }}
    layer {{ name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param {{ pool: {pool} {sizes} }} }}""")
    )
    export_onnx(net, None, tmp_path / "net.onnx", dynamic=dynamic)
    report = import_onnx(tmp_path / "net.onnx", tmp_path / "back", shape=(3, 8, 10))
    assert [layer.type for layer in Net(report.prototxt).param.layer] == ["Input", "Pooling"]


def test_layers_of_every_kind_come_back(tmp_path: Path) -> None:
    net = Net(
        parse_net("""
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 6 dim: 7 dim: 5 } } }
    layer { name: "a" type: "Slice" bottom: "x" top: "s0" top: "s1" slice_param { slice_point: 2 } }
    layer { name: "b" type: "Convolution" bottom: "s1" top: "c" convolution_param { num_output: 4
      kernel_h: 3 kernel_w: 1 pad_h: 2 pad_w: 0 stride_h: 1 stride_w: 2 dilation: 2 group: 2
      weight_filler { type: "msra" } } }
    layer { name: "d" type: "Deconvolution" bottom: "s0" top: "d" convolution_param { num_output: 4 kernel_size: 3
      group: 2 stride: 2 bias_term: false weight_filler { type: "msra" } } }
    layer { name: "e" type: "PReLU" bottom: "c" top: "e" }
    layer { name: "f" type: "Scale" bottom: "e" top: "f" scale_param { bias_term: true filler { type: "msra" } } }
    layer { name: "g" type: "Eltwise" bottom: "f" bottom: "e" top: "g" eltwise_param { coeff: 2 coeff: -1 } }
    layer { name: "h" type: "LRN" bottom: "g" top: "h" }
    layer { name: "hw" type: "LRN" bottom: "h" top: "hw" lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 } }
    layer { name: "i" type: "MVN" bottom: "hw" top: "i" }
    layer { name: "j" type: "Permute" bottom: "i" top: "j" permute_param { order: [0, 2, 3, 1] } }
    layer { name: "k" type: "InnerProduct" bottom: "j" top: "k" inner_product_param { axis: 3 num_output: 5
      weight_filler { type: "msra" } bias_filler { type: "uniform" } } }
    layer { name: "l" type: "Crop" bottom: "d" bottom: "g" top: "l" crop_param { axis: 2 offset: 1 } }
    layer { name: "m" type: "Concat" bottom: "l" bottom: "g" top: "m" }
    layer { name: "n" type: "Clip" bottom: "m" top: "n" clip_param { min: -1 max: 1 } }
    layer { name: "o" type: "Reduction" bottom: "n" top: "o" reduction_param { axis: 2 operation: MEAN coeff: 3 } }
    layer { name: "q" type: "Softmax" bottom: "o" top: "q" }
    layer { name: "r" type: "Interp" bottom: "n" top: "r" interp_param { height: 9 width: 9 } }
    layer { name: "t" type: "Power" bottom: "k" top: "t" power_param { power: 2 scale: 0.5 shift: 3 } }
    layer { name: "u" type: "ReLU" bottom: "t" top: "u" relu_param { negative_slope: 0.1 } }
    layer { name: "v" type: "Upsample" bottom: "r" top: "v" upsample_param { scale: 2 } }
    layer { name: "w" type: "ELU" bottom: "v" top: "w" }""")
    )
    there_and_back(net, tmp_path)


def graph(
    nodes: list[Any], shape: tuple[int, ...], constants: dict[str, np.ndarray], path: Path, kind: int = 1
) -> Path:
    """A model of these nodes, from x to y."""
    values = [helper.make_tensor_value_info(name, kind, dims) for name, dims in (("x", shape),)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    fixed = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "hand", values, [output], fixed), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_a_model_made_by_hand_comes_in(tmp_path: Path) -> None:
    """Squeeze and excitation, constants on either side, paddings by name, and a HardSigmoid."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["c"], auto_pad="SAME_UPPER", kernel_shape=[3, 3]),
        node("Sub", ["one", "c"], ["n"]),
        node("Div", ["n", "each"], ["i"]),
        node("GlobalAveragePool", ["i"], ["g"]),
        node("HardSigmoid", ["g"], ["h"]),
        node("Mul", ["i", "h"], ["m"]),
        node("Add", ["m", "map"], ["a"]),
        node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("ReduceMean", ["p"], ["r"], axes=[2, 3], keepdims=0),
        node("Gemm", ["r", "w2", "b2"], ["f"], alpha=0.5, beta=2.0),
        node("Dropout", ["f"], ["u"]),
        node("LogSoftmax", ["u"], ["y"], axis=1),
    ]
    draw = {"w": (4, 3, 3, 3), "each": (4, 1, 1), "map": (6, 6), "w2": (4, 5), "b2": (5,)}
    constants = {name: RANDOM.uniform(0.5, 2, shape).astype(np.float32) for name, shape in draw.items()}
    constants["one"] = np.ones(1, np.float32)
    report = import_onnx(graph(nodes, (1, 3, 6, 6), constants, tmp_path / "m.onnx"), tmp_path / "out")
    assert report.difference < 1e-4


NODE = helper.make_node
FORMS: dict[str, list[Any]] = {
    "HardSwish": [NODE("HardSwish", ["x"], ["y"])],
    "Clip": [NODE("Clip", ["x", "", "six"], ["y"])],
    "ReduceMean": [NODE("ReduceMean", ["x", "both"], ["m"], keepdims=1), NODE("Flatten", ["m"], ["y"])],
    "ReduceL2": [
        *(NODE("ReduceL2", ["x", "channel"], ["l"], keepdims=1), NODE("Shape", ["x"], ["s"])),
        *(NODE("Expand", ["l", "s"], ["e"]), NODE("Div", ["x", "e"], ["y"])),
    ],
    "Pad": [NODE("Pad", ["x", "pads", "", "both"], ["y"])],
    "DCR": [NODE("DepthToSpace", ["x"], ["y"], blocksize=2)],
    "CRD": [NODE("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD")],
    "AveragePool": [
        NODE("AveragePool", ["x"], ["a"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        NODE("Relu", ["a"], ["y"]),
    ],
    "an average that is given out": [NODE("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1] * 4)],
    "averages of channels": [
        *(NODE("Unsqueeze", ["x", "channel"], ["u"]), NODE("Pad", ["u", "wide"], ["p"])),
        *(NODE("AveragePool", ["p"], ["a"], kernel_shape=[3, 1, 1], strides=[1] * 3), NODE("Relu", ["a"], ["y"])),
    ],
    "ReduceMax": [NODE("ReduceMax", ["x", "both"], ["y"], keepdims=0)],
    "output_padding": [
        NODE("ConvTranspose", ["x", "kernel"], ["y"], strides=[2, 3], pads=[0, 2, 1, 1], output_padding=[1, 2])
    ],
    "a computed shape": [
        *(NODE("Shape", ["x"], ["s"], start=0, end=1), NODE("Concat", ["s", "rest"], ["t"], axis=0)),
        NODE("Reshape", ["x", "t"], ["y"]),
    ],
    "a function": [NODE("Swish", ["x"], ["y"], domain="local")],
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_newer_exporters_come_in(name: str, tmp_path: Path) -> None:
    """Axes as inputs, shapes that are computed, functions of the model's own, and weights beside it."""
    body = [NODE("Sigmoid", ["a"], ["b"]), NODE("Mul", ["a", "b"], ["c"])]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    constants = {"six": np.array(0.5, np.float32), "both": [2, 3], "channel": [1], "pads": [1, 0, 2, 3], "rest": [-1]}
    constants |= {"wide": [0, 0, 1, 0, 0] * 2, "kernel": RANDOM.standard_normal((4, 2, 3, 3)).astype(np.float32)}
    model = helper.make_model(
        helper.make_graph(
            FORMS[name],
            "forms",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 4, 5, 6))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
        ),
        opset_imports=opsets,
        functions=[helper.make_function("local", "Swish", ["a"], ["c"], body, opsets[:1])],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    assert import_onnx(tmp_path / "m.onnx", tmp_path / "out").difference < 1e-5


def exported_by_torch(net: torch.nn.Module, path: Path, size: int = 64, **settings: Any) -> Path:
    settings = settings or {"dynamo": False, "opset_version": 13}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), (torch.randn(1, 3, size, size),), path, **settings)
    return path


def test_a_net_of_pytorchs_comes_in(tmp_path: Path) -> None:
    from torch import nn

    net = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.LeakyReLU(), nn.MaxPool2d(3, 2, 1)),
        *(nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.Softmax(1)),
    )
    assert import_onnx(exported_by_torch(net, tmp_path / "m.onnx"), tmp_path / "out").difference < 1e-4


def torchvisions(name: str) -> torch.nn.Module:
    import torchvision

    torch.manual_seed(0)
    settings = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    net: torch.nn.Module = getattr(torchvision.models, name)(weights=None, **settings)
    return net


NAMES = ("alexnet", "vgg11", "resnet18", "squeezenet1_1", "mobilenet_v2", "densenet121", "googlenet")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nets_of_torchvisions_come_in(name: str, tmp_path: Path) -> None:
    path = exported_by_torch(torchvisions(name), tmp_path / "m.onnx", 224)
    assert import_onnx(path, tmp_path / "out").difference < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5", "regnet_y_400mf"])
def test_nets_come_in_as_pytorchs_newer_exporter_writes_them(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript, by which PyTorch exports with dynamo=True, is not installed")
    path = exported_by_torch(torchvisions(name), tmp_path / "m.onnx", 224, dynamo=True, verbose=False)
    assert import_onnx(path, tmp_path / "out").difference < 1e-4


@pytest.mark.parametrize(
    ("nodes", "kinds"),
    [
        (lambda node: [node("TopK", ["x", "two"], ["y", "place"], axis=1)], ["ArgMax"]),
        (
            lambda node: [
                node("ArgMax", ["x"], ["place"], axis=1, keepdims=0),
                node("Cast", ["place"], ["number"], to=1),
                node("Mul", ["number", "number"], ["y"]),
            ],
            ["ArgMax", "Reshape", "Eltwise"],
        ),
        (
            lambda node: [node("Cast", ["x"], ["index"], to=7), node("Gather", ["rows", "index"], ["y"])],
            ["Embed"],
        ),
        (
            lambda node: [node("ReduceSum", ["x", "one"], ["sum"], keepdims=1), node("Div", ["x", "sum"], ["y"])],
            ["Permute", "Reduction", "Reshape", "Power", "Tile", "Eltwise"],
        ),
        (lambda node: [node("Concat", ["x", "map"], ["y"], axis=2)], ["Parameter", "Concat"]),
    ],
)
def test_what_chooses_by_numbers_repeats_or_is_a_constant_comes_in(
    nodes: Callable[[Any], list[Any]], kinds: list[str], tmp_path: Path
) -> None:
    constants = {"two": np.array([2]), "one": np.array([1]), "map": np.ones((1, 3, 1), np.float32)}
    constants["rows"] = RANDOM.standard_normal((7, 2)).astype(np.float32)
    report = import_onnx(graph(nodes(helper.make_node), (1, 3, 4), constants, tmp_path / "m.onnx"), tmp_path / "out")
    assert [layer.type for layer in Net(report.prototxt).param.layer] == ["Input", *kinds]
    assert report.difference < 1e-5


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
@pytest.mark.parametrize("begins", [True, False])
def test_recurrent_layers_come_back_with_their_hidden_values(kind: str, begins: bool, tmp_path: Path) -> None:
    """Those that were inside again inside, those that were bottoms and tops as these; cont as an input, or all ones."""
    for exposed in (True, False):
        states = ["h", "c"][: 1 + (kind == "LSTM")] if exposed else []
        shapes = {"x": [4, 1, 3], "cont": [4, 1]} | ({"static": [1, 2]} if begins else {})
        shapes |= {name: [1, 1, 5] for name in states}
        inputs = "".join(
            f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ dim: {shape} }} }} }}'
            for name, shape in shapes.items()
        )
        bottoms = " ".join(f'bottom: "{name}"' for name in shapes)
        tops = " ".join(f'top: "{name}"' for name in ["y", *(f"{name}_end" for name in states)])
        own = f'num_output: 5 expose_hidden: {str(exposed).lower()} weight_filler {{ type: "xavier" }}'
        layer = f'layer {{ name: "r" type: "{kind}" {bottoms} {tops} recurrent_param {{ {own} }} }}'
        net = Net(parse_net(inputs + layer), TEST, backward=False)
        export_onnx(net, None, tmp_path / "net.onnx", continuous=not begins)
        report = import_onnx(tmp_path / "net.onnx", tmp_path / "back")
        again = Net(report.prototxt, TEST, backward=False)
        again.copy_weights(report.caffemodel)
        assert ("cont" in again.inputs) == begins and set(again.outputs) == set(net.outputs)
        assert ("DummyData" in {layer.type for layer in again.param.layer}) != begins
        feeds = {name: torch.rand(*shape) for name, shape in shapes.items()}
        feeds["cont"] = torch.tensor([[1.0], [1], [float(not begins)], [1]])
        for _ in range(2):  # the second pass goes on from the first
            expected = net.forward(**{name: feeds[name] for name in net.inputs})
            actual = again.forward(**{name: feeds[name] for name in again.inputs})
            for name, value in expected.items():
                torch.testing.assert_close(actual[name], value)


@pytest.mark.parametrize("pads", [[0, 0, 1, 1], [2, 0, 0, 1]])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_convolution_that_pads_more_on_one_side_comes_in(pads: list[int], stride: int, tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=pads, strides=[stride, stride])
    constants = {"w": RANDOM.standard_normal((2, 3, 3, 2)).astype(np.float32)}
    for size in (6, 7):
        path = graph([node], (1, 3, size, size), constants, tmp_path / "m.onnx")
        assert import_onnx(path, tmp_path / "out").difference < 1e-5


PAD = {"kernel_shape": [3, 3], "pads": [2, 2, 3, 3], "dilations": [2, 2]}


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (lambda node: [node("Erf", ["x"], ["y"])], r'node "y" \(Erf\): no layer of Caffe\'s does that'),
        (lambda node: [node("Conv", ["x", "w"], ["y"], **PAD)], "pads 2x2 before and 3x3 behind"),
        (lambda node: [node("Conv", ["x", "x"], ["y"])], 'its input "x" is computed, expected a constant'),
        (lambda node: [node("Pad", ["x", "pads"], ["y"], mode="reflect")], "pads by 0, 0, 1, .*, by other than zeros"),
        (
            lambda node: [node("Erf", ["x"], ["a"]), node("Sin", ["a"], ["b"]), node("Relu", ["b"], ["y"])],
            r'"a" \(Erf\): .*; and 1 other',
        ),
    ],
)
def test_what_has_no_layer_is_named_and_nothing_is_written(
    nodes: Callable[[Any], list[Any]], said: str, tmp_path: Path
) -> None:
    weight = {"w": np.ones((3, 3, 3, 3), np.float32), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    path = graph(nodes(helper.make_node), (3, 3, 3, 3), weight, tmp_path / "m.onnx")
    with pytest.raises(InputError, match=said):
        import_onnx(path, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_inputs_that_no_blob_can_be_are_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=1)]
    with pytest.raises(InputError, match='"x" is of UINT8, expected FLOAT, as blobs are, or images N x H x W x C that'):
        import_onnx(graph(nodes, (1, 3), {}, tmp_path / "m.onnx", TensorProto.UINT8), tmp_path / "out")
    path = graph([helper.make_node("Relu", ["x"], ["y"])], ("N", 3, "H", "W"), {}, tmp_path / "m.onnx")
    with pytest.raises(InputError, match='"x" has open sizes, 1x3x0x0; say which by --shape, as CxHxW'):
        import_onnx(path, tmp_path / "out")
    assert import_onnx(path, tmp_path / "out", shape=(3, 4, 5)).difference == 0
    model = onnx.load(path)
    helper.set_model_props(model, {"imae.precision": "int8"})
    onnx.save(model, path)
    with pytest.raises(InputError, match="numbers are rounded to int8; import the float32 model that it was made of"):
        import_onnx(path, tmp_path / "out", shape=(3, 4, 5))
    path.write_bytes(b"junk")
    with pytest.raises(InputError, match=r"m\.onnx: is no sound ONNX model"):
        import_onnx(path, tmp_path / "out")
