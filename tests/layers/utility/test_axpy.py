"""Axpy, as SENet's Caffe has it."""

from layer_cases import Case, normal


def axpy(a: tuple[int, ...], *shape: int) -> Case:
    return Case(
        'type: "Axpy"',
        [normal(*a), normal(*shape), normal(*shape)],
        lambda xs, blobs: [xs[0].view(*shape[:2], *[1] * (len(shape) - 2)) * xs[1] + xs[2]],
    )


CASES = [axpy((2, 3), 2, 3, 4, 5), axpy((2, 3, 1, 1), 2, 3, 2, 2), axpy((2, 3), 2, 3)]
MISTAKES = [
    ('type: "Axpy"', [(2, 3), (2, 3, 4, 4)], "takes 3 bottom blobs, the prototxt gives 2"),
    ('type: "Axpy"', [(2, 4), (2, 3, 4, 4), (2, 3, 4, 4)], "a of 2x4, x of 2x3x4x4 and y of 2x3x4x4 do not fit"),
    ('type: "Axpy"', [(2, 3), (2, 3, 4, 4), (2, 3, 4, 5)], "do not fit"),
    ('type: "Axpy"', [(2, 3, 2), (2, 3, 4, 4), (2, 3, 4, 4)], "do not fit"),
]
