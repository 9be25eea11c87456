"""Proposal, with py-faster-rcnn's anchors and numbers: box by box in plain Python beside it."""

import math
from pathlib import Path

import onnxruntime
import pytest
import torch
from detection_cases import overlap
from layer_cases import Case, Draw, run
from torch import Tensor

from imae.layers.detection.proposal import anchors
from imae.layers.gradient_check import build_layer
from imae.layers.layer import TEST
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.prototxt_like.text import parse_net

ROWS, COLUMNS, COUNT = 3, 4, 4
TEXT = (
    "proposal_param {{ ratio: 0.5 ratio: 2 scale: 2 scale: 4 min_size: {least} pre_nms_topn: {before} "
    "post_nms_topn: {after} nms_thresh: 0.6 feat_stride: 16 }}"
)


def test_anchors_are_the_published_ones() -> None:
    """The nine of generate_anchors.py, in its docstring."""
    assert anchors(16, [0.5, 1, 2], [8, 16, 32]).tolist() == [
        [-84, -40, 99, 55],
        [-176, -88, 191, 103],
        [-360, -184, 375, 199],
        [-56, -56, 71, 71],
        [-120, -120, 135, 135],
        [-248, -248, 263, 263],
        [-36, -80, 51, 95],
        [-80, -168, 95, 183],
        [-168, -344, 183, 359],
    ]


def expected(xs: list[Tensor], least: float, before: int, after: int) -> list[list[float]]:
    height, width, scale = xs[2].flatten().tolist()[:3]
    base, found = anchors(16, [0.5, 2], [2, 4]).tolist(), []
    for y in range(ROWS):
        for x in range(COLUMNS):
            for a, (x0, y0, x1, y1) in enumerate(base):
                w, h = x1 - x0 + 1, y1 - y0 + 1
                dx, dy, dw, dh = xs[1][0, 4 * a : 4 * a + 4, y, x].tolist()
                cx, cy = x0 + 16 * x + w / 2 + dx * w, y0 + 16 * y + h / 2 + dy * h
                w, h = w * math.exp(dw), h * math.exp(dh)
                box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
                box = [min(max(v, 0), end - 1) for v, end in zip(box, (width, height) * 2, strict=True)]
                if box[2] - box[0] + 1 >= least * scale and box[3] - box[1] + 1 >= least * scale:
                    found.append((xs[0][0, COUNT + a, y, x].item(), box))
    kept: list[tuple[float, list[float]]] = []
    for score, box in sorted(found, key=lambda f: -f[0])[:before]:
        if all(overlap(box, other) <= 0.6 for _, other in kept):
            kept.append((score, box))
    return [[0, *box, score] for score, box in kept[:after]] or [[0.0] * 6]


def bottoms(seed: int, info: list[float]) -> list[Tensor]:
    draw = Draw(seed)
    offsets = 0.3 * draw.normal(1, 4 * COUNT, ROWS, COLUMNS)
    return [draw.uniform(1, 2 * COUNT, ROWS, COLUMNS).float(), offsets.float(), torch.tensor([info])]


@pytest.mark.parametrize(
    ("least", "before", "after", "info"),
    [(16, 40, 10, [48.0, 64.0, 1.0]), (8, 10, 300, [40.0, 60.0, 2.0, 2.0]), (200, 10, 3, [48.0, 64.0, 1.0])],
)
def test_regions_are_those_of_the_loops_here_and_in_onnx_runtime(
    least: int, before: int, after: int, info: list[float], tmp_path: Path
) -> None:
    text = TEXT.format(least=least, before=before, after=after)
    xs = bottoms(least, info)
    layer = build_layer(f'type: "Proposal" top: "r" top: "s" {text}', [tuple(x.shape) for x in xs])
    (regions, scores), _ = run(layer, xs)
    rows = torch.tensor(expected(xs, least, before, after))
    torch.testing.assert_close(torch.cat([regions, scores], 1), rows, rtol=1e-5, atol=1e-3)
    inputs = "".join(
        f'layer {{ name: "{n}" type: "Input" top: "{n}" input_param {{ shape {{ dim: {list(x.shape)} }} }} }}'
        for n, x in zip("abc", xs, strict=True)
    )
    layer_text = f'layer {{ name: "p" type: "Proposal" bottom: "a" bottom: "b" bottom: "c" top: "r" top: "s" {text} }}'
    export_onnx(Net(parse_net(inputs + layer_text), TEST), None, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    found = session.run(["r", "s"], {name: x.numpy() for name, x in zip("abc", xs, strict=True)})
    torch.testing.assert_close(torch.cat([torch.from_numpy(x) for x in found], 1), rows, rtol=1e-5, atol=1e-3)


SHAPES = [(1, 18, 3, 4), (1, 36, 3, 4), (1, 3)]
MISTAKES = [
    ('type: "Proposal" proposal_param { ratio: 0 }', SHAPES, "ratio, scale, feat_stride and base_size must be above 0"),
    ('type: "Proposal" proposal_param { ratio: 1 }', SHAPES, "3 anchors need bottoms with 6 and 12 channels"),
    ('type: "Proposal"', [*SHAPES[:2], (1, 2)], "needs the image's height, width and scale, found 1x2"),
]
CASES = [
    Case(
        f'type: "Proposal" {TEXT.format(least=16, before=40, after=10)}',
        [lambda draw, i=i: bottoms(16, [48.0, 64.0, 1.0])[i].double() for i in range(3)],
        lambda xs, blobs: [torch.tensor(expected(xs, 16, 40, 10), dtype=xs[0].dtype)[:, :5]],
        without={
            "test_bfloat16_gives_the_same_within_its_own_precision": "which boxes are left hangs on the scores' digits",
        },
    )
]
