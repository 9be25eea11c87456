"""Crop."""

from layer_cases import Case, normal


def crop(settings: str, shape: tuple[int, ...], like: tuple[int, ...], *slices: slice) -> Case:
    return Case(
        f'type: "Crop" crop_param {{ {settings} }}',
        [normal(*shape), normal(*like)],
        lambda xs, blobs: [xs[0][(..., *slices)]],
    )


CASES = [
    crop("", (2, 3, 5, 6), (1, 1, 3, 2), slice(0, 3), slice(0, 2)),
    crop("offset: 1", (2, 3, 5, 6), (2, 3, 3, 2), slice(1, 4), slice(1, 3)),
    crop("axis: 2 offset: 2 offset: 1", (2, 3, 5, 6), (2, 3, 3, 2), slice(2, 5), slice(1, 3)),
    crop("axis: -1 offset: 3", (2, 3, 5, 6), (1, 1, 9, 2), slice(3, 5)),
    crop("axis: 0 offset: 1 offset: 0", (3, 5), (2, 4), slice(1, 3), slice(0, 4)),
    crop("axis: 1 offset: 1", (2, 4, 5), (2, 2, 3, 7), slice(1, 3), slice(1, 4)),
]


MISTAKES = [
    ('type: "Crop"', [(1, 2, 5, 5)], "takes 2 bottom blobs, the prototxt gives 1"),
    (
        'type: "Crop" crop_param { offset: 1 offset: 2 offset: 3 }',
        [(1, 2, 5, 5), (1, 2, 2, 2)],
        "offset must be given once or once for each of 2 axes, not 3 times",
    ),
    (
        'type: "Crop" crop_param { offset: 3 }',
        [(1, 2, 5, 5), (1, 2, 2, 3)],
        "has no 3 elements from 3 on along axis 3 of 1x2x5x5",
    ),
    ('type: "Crop"', [(1, 2, 5, 5), (3, 3)], "needs the size of 4 axes, bottom 1 is 3x3"),
]
