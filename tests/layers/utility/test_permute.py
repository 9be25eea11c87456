"""Permute, as SSD's Caffe has it."""

from layer_cases import Case, normal


def permute(order: str, shape: tuple[int, ...], *axes: int) -> Case:
    return Case(
        f'type: "Permute" permute_param {{ {order} }}', [normal(*shape)], lambda xs, blobs: [xs[0].permute(*axes)]
    )


CASES = [
    permute("order: 0 order: 2 order: 3 order: 1", (2, 3, 4, 5), 0, 2, 3, 1),
    permute("order: 3 order: 1", (2, 3, 4, 5), 3, 1, 0, 2),
    permute("", (2, 3), 0, 1),
    permute("order: 1", (2, 3), 1, 0),
]
MISTAKES = [
    ('type: "Permute" permute_param { order: 1 order: 1 }', [(2, 3)], "order [1, 1] does not name different axes"),
    (
        'type: "Permute" permute_param { order: 2 }',
        [(2, 3)],
        "order [2] does not name different axes of a bottom of 2x3",
    ),
]
