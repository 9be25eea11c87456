"""Exported models at sizes other than those that they were exported at, where the net lets these vary."""

from pathlib import Path

import pytest
import torch

from imae.nets.net import Net
from imae.nets.onnx_export import compare_with_onnxruntime, export_onnx
from imae.nets.onnx_verify import verify
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

SIDES = ("batch", "height", "width")


def image_net(layers: str, *, channels: int = 3, size: int = 12, inputs: str = "") -> Net:
    shape = f"dim: 2 dim: {channels} dim: {size} dim: {size}"
    text = f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {shape} }} }} }}'
    return Net(parse_net(text + inputs + layers), backward=False)


def layer(kind: str, settings: str, bottom: str = "data", top: str = "y") -> str:
    bottoms = " ".join(f'bottom: "{name}"' for name in bottom.split())
    return f'layer {{ name: "{top}" type: "{kind}" {bottoms} top: "{top}" {settings} }}'


WINDOWS = [
    f"pool: {pool} kernel_size: {kernel} stride: {stride} pad: {pad} round_mode: {mode}"
    for pool in ("AVE", "MAX")
    for kernel, stride, pad in ((2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 3, 1), (3, 3, 2), (5, 2, 4), (4, 3, 1))
    for mode in ("CEIL", "FLOOR")
]
ANY_SIZE = [
    layer("Convolution", "convolution_param { num_output: 2 kernel_size: 3 stride: 2 }"),
    layer("Deconvolution", "convolution_param { num_output: 2 kernel_size: 3 stride: 2 pad: 1 }"),
    layer("Im2col", "convolution_param { kernel_size: 3 }"),
    layer("Pooling", "pooling_param { pool: AVE global_pooling: true }"),
    layer("LRN", "lrn_param { alpha: 0.5 local_size: 3 norm_region: WITHIN_CHANNEL }"),
    layer("MVN", "mvn_param { across_channels: true }"),
    layer("Flatten", ""),
    layer("Reshape", "reshape_param { shape { dim: 0 dim: 3 dim: -1 } }"),
    layer("Reduction", "reduction_param { axis: 1 operation: MEAN }"),
    layer("Slice", 'top: "z" slice_param { axis: 2 slice_point: 3 }'),
    layer("ArgMax", "argmax_param { top_k: 2 }"),
    layer("Tile", "tile_param { axis: 2 tiles: 2 }"),
    layer("Softmax", ""),
    layer("Convolution", "convolution_param { num_output: 2 kernel_size: 5 }", top="small")
    + layer("Crop", "crop_param { offset: 2 }", bottom="data small"),
]


@pytest.mark.parametrize("net", [*ANY_SIZE, *(layer("Pooling", f"pooling_param {{ {w} }}") for w in WINDOWS)])
def test_the_model_follows_images_of_any_size(net: str, tmp_path: Path) -> None:
    """Larger and smaller, and of sizes that leave all rests by the strides."""
    built = image_net(net)
    report = export_onnx(built, None, tmp_path / "net.onnx", dynamic=SIDES)
    assert report.inputs == {"data": ("N", 3, "H", "W")}
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in ((1, 10, 11), (3, 13, 12), (2, 17, 8)):
        images = torch.randn(batch, 3, height, width, generator=generator)
        try:
            built.reshape(data=images.shape)
        except InputError:  # Caffe takes no such pooling
            continue
        assert compare_with_onnxruntime(tmp_path / "net.onnx", built, images) <= 1e-5


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (layer("InnerProduct", "inner_product_param { num_output: 2 }"), "takes one size only"),
        (layer("SPP", "spp_param { pyramid_height: 2 }"), "its ONNX form depends on it"),
    ],
)
def test_a_height_that_cannot_vary_is_refused_before_anything_is_written(net: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f'its height cannot stay open: layer "y".*{reason}'):
        export_onnx(image_net(net), None, tmp_path / "net.onnx", dynamic=SIDES)
    assert not list(tmp_path.iterdir())


SCALED = 'layer { name: "s" type: "Parameter" top: "s" parameter_param { shape { dim: 2 } } }'
OTHER = 'layer { name: "in" type: "Input" top: "s" input_param { shape { dim: 2 } } }'
COLUMN = 'layer { name: "in" type: "Input" top: "s" input_param { shape { dim: 2 dim: 3 } } }'
IN_TWO = layer("Slice", "slice_param { axis: 0 }", top="a").replace('top: "a"', 'top: "a" top: "b"')


@pytest.mark.parametrize(
    ("inputs", "net", "shapes"),
    [
        (SCALED, layer("Scale", "scale_param { axis: 0 }", bottom="data s"), {"data": (2, 3, 12, 12)}),
        ("", layer("Bias", "bias_param { axis: 0 }"), {"data": (2, 3, 12, 12)}),
        (OTHER, layer("Scale", "scale_param { axis: 0 }", bottom="data s"), {"data": ("N", 3, 12, 12), "s": ("N",)}),
        (COLUMN, layer("Bias", "bias_param { axis: 0 }", bottom="data s"), {"data": ("N", 3, 12, 12), "s": ("N", 3)}),
        ("", IN_TWO, {"data": ("N", 3, 12, 12)}),
        ("", layer("Reshape", "reshape_param { shape { dim: 2 dim: -1 } }"), {"data": ("N", 3, 12, 12)}),
        ("", layer("Reshape", "reshape_param { shape { dim: 6 dim: 144 } }"), {"data": (2, 3, 12, 12)}),
    ],
)
def test_a_batch_is_open_where_no_layer_ties_it(
    inputs: str, net: str, shapes: dict[str, tuple[int | str, ...]], tmp_path: Path
) -> None:
    built = image_net(net, inputs=inputs)
    report = export_onnx(built, None, tmp_path / "net.onnx")
    assert report.inputs == shapes
    assert ("batch" in report.sizes.closed) == (shapes["data"][0] == 2)
    assert verify(report, built).difference <= 1e-5


def test_an_unknown_size_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='"depth" is no size that can stay open: those are batch, height, width'):
        export_onnx(image_net(layer("ReLU", "")), None, tmp_path / "net.onnx", dynamic=["depth"])


def test_what_follows_a_choice_of_items_has_a_batch_of_its_own(tmp_path: Path) -> None:
    chosen = layer("Filter", "", bottom="data s", top="chosen")
    net = image_net(chosen + layer("Flatten", "", bottom="chosen"), inputs=OTHER)
    report = export_onnx(net, None, tmp_path / "net.onnx")
    assert (report.inputs["s"], report.outputs["y"]) == (("N",), ("?", 432))
    assert verify(report, net).difference == 0
