"""PSROIPooling, cell by cell as R-FCN's Caffe has it."""

import math
from pathlib import Path

import onnxruntime
import pytest
import torch
from layer_cases import Case, Draw, normal, run
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.layers.layer import TEST
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

REGIONS = [
    [0, 0, 0, 15, 11],
    [1, 2, 1, 9.5, 4],
    [0, 3, 3, 3, 3],
    [1, 30, 30, 34, 34],
    [0, -3, 1, 4, 60],
    [1, 9, 8, 2, 2],
]


def pooled(xs: list[Tensor], classes: int, g: int, scale: float) -> list[Tensor]:
    x, (rows, columns) = xs[0], xs[0].shape[2:]
    tops = []
    for image, *corners in xs[1].flatten(1).tolist():
        x0, y0, x1, y1 = (math.floor(abs(c) + 0.5) * (1 if c >= 0 else -1) for c in corners)
        x0, y0, x1, y1 = x0 * scale, y0 * scale, (x1 + 1) * scale, (y1 + 1) * scale
        cell_w, cell_h = max(x1 - x0, 0.1) / g, max(y1 - y0, 0.1) / g
        for d in range(classes):
            for i in range(g):
                for j in range(g):
                    top, bottom = math.floor(i * cell_h + y0), math.ceil((i + 1) * cell_h + y0)
                    left, right = math.floor(j * cell_w + x0), math.ceil((j + 1) * cell_w + x0)
                    top, bottom = (min(max(v, 0), rows) for v in (top, bottom))
                    left, right = (min(max(v, 0), columns) for v in (left, right))
                    part = x[int(image), (d * g + i) * g + j, top:bottom, left:right]
                    tops.append(part.mean() if part.numel() else x.new_zeros(()))
    return [torch.stack(tops).view(len(xs[1]), classes, g, g)]


def regions(draw: Draw) -> Tensor:
    return torch.tensor(REGIONS, dtype=torch.float64)


def case(classes: int, g: int, scale: float) -> Case:
    settings = f"psroi_pooling_param {{ spatial_scale: {scale} output_dim: {classes} group_size: {g} }}"
    features = normal(2, classes * g * g, 6, 8)
    text = f'type: "PSROIPooling" {settings}'
    return Case(text, [features, regions], lambda xs, blobs: pooled(xs, classes, g, scale))


CASES = [case(2, 3, 0.5), case(1, 2, 1), case(3, 1, 0.25)]
OWN = "psroi_pooling_param { spatial_scale: 1 output_dim: 2 group_size: 2 }"
SHAPES = [(2, 8, 6, 8), (4, 5)]
MISTAKES = [
    ('type: "PSROIPooling"', SHAPES, "needs spatial_scale, output_dim and group_size above 0"),
    (f'type: "PSROIPooling" {OWN}', [(2, 7, 6, 8), (4, 5)], "needs 2 x 2 x 2 channels, found 2x7x6x8"),
    (f'type: "PSROIPooling" {OWN}', [SHAPES[0], (4, 4)], "regions of R x 5, found"),
]


def test_a_region_of_an_image_that_is_not_there_is_an_error() -> None:
    layer = build_layer(f'type: "PSROIPooling" {OWN}', [(1, 8, 6, 8), (1, 5)])
    with pytest.raises(InputError, match="image 1 is out of range: there are 1 images"):
        run(layer, [torch.zeros(1, 8, 6, 8), torch.tensor([[1.0, 0, 0, 3, 3]])])


def test_onnx_runtime_gives_the_loops_means(tmp_path: Path) -> None:
    net = parse_net(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 18, 6, 8] } } }'
        'layer { name: "r" type: "Input" top: "r" input_param { shape { dim: [6, 5] } } }'
        'layer { name: "y" type: "PSROIPooling" bottom: "x" bottom: "r" top: "y" '
        "psroi_pooling_param { spatial_scale: 0.5 output_dim: 2 group_size: 3 } }"
    )
    export_onnx(Net(net, TEST), None, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    xs = [x.float() for x in CASES[0].draw()]
    (found,) = session.run(["y"], dict(zip("xr", (x.numpy() for x in xs), strict=True)))
    torch.testing.assert_close(torch.from_numpy(found), pooled(xs, 2, 3, 0.5)[0])
