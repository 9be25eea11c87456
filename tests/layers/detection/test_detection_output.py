"""DetectionOutput, as SSD's Caffe has it: box by box in plain Python beside it."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from layer_cases import Case, Draw, run
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.layers.layer import TEST
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.prototxt_like.text import parse_net

IMAGES, PRIORS, CLASSES = 2, 9, 4


def decoded(code: str, offset: list[float], prior: list[float], variance: list[float]) -> list[float]:
    x0, y0, x1, y1 = prior
    a, b, c, d = (o * v for o, v in zip(offset, variance, strict=True))
    width, height = x1 - x0, y1 - y0
    if code == "CORNER":
        return [x0 + a, y0 + b, x1 + c, y1 + d]
    if code == "CORNER_SIZE":
        return [x0 + a * width, y0 + b * height, x1 + c * width, y1 + d * height]
    x, y = a * width + (x0 + x1) / 2, b * height + (y0 + y1) / 2
    w, h = math.exp(c) * width, math.exp(d) * height
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def overlap(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def expected(
    xs: list[Tensor],
    code: str,
    *,
    shared: bool,
    encoded: bool,
    least: float,
    top_k: int,
    nms: float,
    eta: float,
    keep: int,
    background: int,
) -> list[list[float]]:
    (priors, variances), rows = xs[2].view(2, PRIORS, 4).tolist(), []
    places = 1 if shared else CLASSES
    offsets, scores = xs[0].view(IMAGES, PRIORS, places, 4).tolist(), xs[1].view(IMAGES, PRIORS, CLASSES).tolist()
    for image in range(IMAGES):
        found = []
        for label in range(CLASSES):
            if label == background:
                continue
            order = sorted(range(PRIORS), key=lambda p: -scores[image][p][label])
            order = [p for p in order if scores[image][p][label] > least][: top_k if top_k > -1 else None]
            kept: list[tuple[list[float], int]] = []
            threshold = nms
            for p in order:
                ones = [1.0] * 4
                box = decoded(
                    code, offsets[image][p][0 if shared else label], priors[p], ones if encoded else variances[p]
                )
                if all(overlap(box, other) <= threshold for other, _ in kept):
                    kept.append((box, p))
                    threshold *= eta if threshold > 0.5 else 1
            found += [[image, label, scores[image][p][label], *box] for box, p in kept]
        if -1 < keep < len(found):
            found = sorted(sorted(found, key=lambda row: -row[2])[:keep], key=lambda row: (row[1], -row[2]))
        rows += found
    return rows or [[image, *[-1.0] * 6] for image in range(IMAGES)]


def bottoms(draw: Draw, shared: bool) -> list[Tensor]:
    """As floats, with priors that overlap."""
    low = 0.6 * draw.uniform(PRIORS, 2)
    priors = torch.cat([low, low + 0.2 + 0.3 * draw.uniform(PRIORS, 2)], 1)
    both = torch.stack([priors.flatten(), (0.1 + 0.1 * draw.uniform(PRIORS, 4)).flatten()])[None]
    offsets = draw.normal(IMAGES, PRIORS * 4 * (1 if shared else CLASSES))
    return [offsets.float(), draw.uniform(IMAGES, PRIORS * CLASSES).float(), both.float()]


def settings(
    code: str,
    *,
    shared: bool,
    encoded: bool,
    least: float,
    top_k: int,
    nms: float,
    eta: float,
    keep: int,
    background: int,
) -> str:
    return (
        f"detection_output_param {{ num_classes: {CLASSES} share_location: {str(shared).lower()} code_type: {code} "
        f"variance_encoded_in_target: {str(encoded).lower()} confidence_threshold: {least} keep_top_k: {keep} "
        f"background_label_id: {background} nms_param {{ nms_threshold: {nms} eta: {eta} top_k: {top_k} }} }}"
    )


COMMON = {
    "shared": True,
    "encoded": False,
    "least": 0.2,
    "top_k": 6,
    "nms": 0.45,
    "eta": 1.0,
    "keep": 8,
    "background": 0,
}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"shared": False, "background": -1},
    {"encoded": True, "keep": -1},
    {"eta": 0.8, "nms": 0.7},
    {"top_k": -1, "nms": 0.0},
    {"least": 2.0},
    {"keep": 0},
]


@pytest.mark.parametrize("code", ["CORNER", "CENTER_SIZE", "CORNER_SIZE"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_rows_are_those_of_the_loops(code: str, variant: dict[str, Any]) -> None:
    chosen = COMMON | variant
    for seed in range(3):
        xs = bottoms(Draw(seed), chosen["shared"])
        layer = build_layer(f'type: "DetectionOutput" {settings(code, **chosen)}', [tuple(x.shape) for x in xs])
        (rows,), _ = run(layer, xs)
        torch.testing.assert_close(rows[0, 0], torch.tensor(expected(xs, code, **chosen)), rtol=1e-5, atol=1e-5)


def exported(code: str, chosen: dict[str, Any], path: Path) -> tuple[dict[str, Tensor], Tensor]:
    """Write a model of the layer alone; return its inputs and the rows."""
    xs = dict(zip("abc", bottoms(Draw(5), chosen["shared"]), strict=True))
    inputs = "".join(
        f'layer {{ name: "{n}" type: "Input" top: "{n}" input_param {{ shape {{ dim: {list(x.shape)} }} }} }}'
        for n, x in xs.items()
    )
    ends = 'bottom: "a" bottom: "b" bottom: "c" top: "o"'
    layer = f'layer {{ name: "o" type: "DetectionOutput" {ends} {settings(code, **chosen)} }}'
    net = Net(parse_net(inputs + layer), TEST)
    export_onnx(net, None, path, opset=17)
    given: dict[str, Any] = dict(xs)
    return xs, net.forward(**given)["o"]


@pytest.mark.parametrize(
    ("code", "variant"),
    [
        *product(["CENTER_SIZE"], [v for v in VARIANTS if "eta" not in v]),
        ("CORNER", {}),
        ("CORNER_SIZE", {"keep": 3}),
        ("CORNER", {"encoded": True, "keep": -1}),  # boxes whose ends are the wrong way round
    ],
    ids=str,
)
def test_onnx_runtime_finds_the_same(code: str, variant: dict[str, Any], tmp_path: Path) -> None:
    import onnxruntime

    xs, rows = exported(code, COMMON | variant, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {name: x.numpy() for name, x in xs.items()})
    torch.testing.assert_close(torch.from_numpy(theirs), rows, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", [{}, {"shared": False, "background": -1, "keep": -1}, {"least": 2.0}], ids=str)
def test_opencv_finds_the_same(variant: dict[str, Any], tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    xs, rows = exported("CENTER_SIZE", COMMON | variant, tmp_path / "net.onnx")
    read = cv2.dnn.readNetFromONNX(str(tmp_path / "net.onnx"))
    for name, x in xs.items():
        read.setInput(x.numpy(), name)
    torch.testing.assert_close(torch.from_numpy(read.forward("o")), rows, rtol=1e-5, atol=1e-5)


SHAPES = [(2, 36), (2, 36), (1, 2, 36)]
MISTAKES = [
    ('type: "DetectionOutput"', SHAPES, "num_classes is missing or 0"),
    (
        'type: "DetectionOutput" detection_output_param { num_classes: 3 }',
        SHAPES,
        "9 priors and 3 classes do not fit offsets of 2x36 and scores of 2x36",
    ),
    (
        'type: "DetectionOutput" detection_output_param { num_classes: 4 nms_param { eta: 0 } }',
        SHAPES,
        "eta must lie in (0, 1], not 0",
    ),
    (
        'type: "DetectionOutput" detection_output_param { num_classes: 4 }',
        [*SHAPES[:2], (1, 36)],
        "needs priors of 1 x 2 x 4 P, found 1x36",
    ),
]
WITHOUT = {
    "test_bfloat16_gives_the_same_within_its_own_precision": "which boxes are left hangs on the last digits of scores",
}
CASES = [
    Case(
        f'type: "DetectionOutput" {settings("CENTER_SIZE", **COMMON | variant)}',
        [
            lambda draw, i=i, variant=variant: bottoms(Draw(9), (COMMON | variant)["shared"])[i].double()
            for i in range(3)
        ],
        lambda xs, blobs, variant=variant: [
            torch.tensor(expected(xs, "CENTER_SIZE", **COMMON | variant), dtype=xs[0].dtype)[None, None]
        ],
        without=WITHOUT,
    )
    for variant in VARIANTS[:4]
]
