"""Interp, as DeepLab's and PSPNet's Caffe has it."""

import torch
import torch.nn.functional as F
from layer_cases import Case, Draw, normal

from imae.layers.vision.interp import by_matrices

SHAPE = (2, 3, 5, 6)


def interp(settings: str, size: tuple[int, int], shape: tuple[int, ...] = SHAPE, cut: tuple[int, int] = (0, 0)) -> Case:
    rows, columns = (slice(cut[0], length - cut[1]) for length in shape[2:])
    return Case(
        f'type: "Interp" interp_param {{ {settings} }}',
        [normal(*shape)],
        lambda xs, blobs: [F.interpolate(xs[0][:, :, rows, columns], size, mode="bilinear", align_corners=True)],
    )


CASES = [
    interp("zoom_factor: 2", (9, 11)),
    interp("shrink_factor: 2", (3, 3)),
    interp("shrink_factor: 2 zoom_factor: 3", (7, 7)),
    interp("height: 7 width: 4", (7, 4)),
    interp("height: 1 width: 1", (1, 1)),
    interp("height: 8 width: 8 pad_beg: -1 pad_end: -2", (8, 8), cut=(1, 2)),
    interp("zoom_factor: 4", (1, 5), shape=(1, 2, 1, 2)),
    Case(
        'type: "Interp" interp_param { use_blob_size: true }',
        [normal(*SHAPE), normal(1, 1, 4, 9)],
        lambda xs, blobs: [F.interpolate(xs[0], (4, 9), mode="bilinear", align_corners=True)],
    ),
]
MISTAKES = [
    ('type: "Interp" interp_param { use_blob_size: true }', [SHAPE], "use_blob_size needs a second bottom"),
    ('type: "Interp"', [SHAPE], "takes its size from factors, from height and width, or from a second bottom"),
    ('type: "Interp" interp_param { height: 3 }', [SHAPE], "height and width are given together"),
    ('type: "Interp" interp_param { height: 3 width: 3 zoom_factor: 2 }', [SHAPE], "one of them"),
    ('type: "Interp" interp_param { zoom_factor: 0 }', [SHAPE], "must be at least 1"),
    ('type: "Interp" interp_param { zoom_factor: 2 pad_beg: 1 }', [SHAPE], "must not be above 0"),
    ('type: "Interp" interp_param { zoom_factor: 2 pad_beg: -5 }', [SHAPE], "makes -1x1 of 0x1"),
    ('type: "Interp" interp_param { zoom_factor: 2 }', [(2, 3, 4)], "needs bottoms of 4 axes, found 2x3x4"),
]


def test_the_gradient_by_matrices_is_that_of_pytorchs_kernel() -> None:
    """It is what a GPU computes."""
    for size, shape in (((9, 11), SHAPE), ((3, 3), SHAPE), ((1, 5), (1, 2, 1, 2)), ((1, 1), SHAPE)):
        dy = Draw(1).normal(*shape[:2], *size)
        expected = torch.ops.aten.upsample_bilinear2d_backward(dy, size, shape, True, None, None)
        torch.testing.assert_close(by_matrices(dy, shape), expected)
