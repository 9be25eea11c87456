"""BoxAnnotatorOHEM, region by region as R-FCN's Caffe has it."""

import torch
from layer_cases import Case, Draw, normal
from torch import Tensor


def annotated(xs: list[Tensor], most: int, ignored: int) -> list[Tensor]:
    count, _, *positions = (*xs[0].shape, 1, 1)[:4]
    size = torch.Size(positions).numel()
    image, loss, label = (x.reshape(count, -1, size)[:, 0].flatten().tolist() for x in xs[:3])
    weights = xs[3].reshape(count, -1, size)
    labels, chosen = torch.full((count, size), float(ignored), dtype=xs[1].dtype), torch.zeros_like(weights)
    left = dict.fromkeys(image, most)
    for index in sorted(range(len(loss)), key=lambda i: -loss[i]):
        n, s = divmod(index, size)
        if left[image[index]] > 0:
            left[image[index]] -= 1
            labels[n, s] = label[index]
            chosen[n, :, s] = weights[n, :, s]
    return [labels.view(count, 1, *positions), chosen.view(count, -1, *positions)]


def case(most: int, *positions: int, ignored: int = -1) -> Case:
    def regions(draw: Draw) -> Tensor:
        return torch.cat([draw.integers(0, 3, 9, 1, *positions).double(), draw.normal(9, 4, *positions)], 1)

    settings = f"box_annotator_ohem_param {{ roi_per_img: {most} ignore_label: {ignored} }}"
    ends = positions or (1, 1)
    labels = [lambda draw: draw.integers(0, 5, 9, 1, *ends).double()]
    return Case(
        f'type: "BoxAnnotatorOHEM" top: "labels" top: "weights" {settings}',
        [regions, normal(9, 1, *ends), *labels, normal(9, 8, *ends)],
        lambda xs, blobs: annotated(xs, most, ignored),
    )


CASES = [case(2), case(3, 2, 1, ignored=255), case(100)]
SHAPES = [(4, 5), (4, 1, 1, 1), (4,), (4, 8)]
MISTAKES = [
    ('type: "BoxAnnotatorOHEM" top: "a" top: "b"', SHAPES, "needs roi_per_img above 0"),
    (
        'type: "BoxAnnotatorOHEM" top: "a" top: "b" box_annotator_ohem_param { roi_per_img: 1 }',
        [(4, 5), (3, 1), (4, 1), (4, 8)],
        "needs regions of R x 5, losses and labels of R x 1 and weights of R x B, found 4x5 and 3x1 and 4x1 and 4x8",
    ),
]
