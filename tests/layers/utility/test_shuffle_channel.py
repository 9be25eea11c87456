"""ShuffleChannel, as ShuffleNet's Caffe has it."""

import torch
from layer_cases import Case, normal, run

from imae.layers.gradient_check import build_layer


def shuffle(group: int, *shape: int) -> Case:
    return Case(
        f'type: "ShuffleChannel" shuffle_channel_param {{ group: {group} }}',
        [normal(*shape)],
        lambda xs, blobs: [xs[0][:, torch.arange(shape[1]).view(group, -1).T.flatten()]],
    )


CASES = [shuffle(3, 2, 6, 2, 3), shuffle(2, 1, 4, 3), shuffle(1, 2, 3, 2, 2), shuffle(4, 2, 4)]
MISTAKES = [
    (
        'type: "ShuffleChannel" shuffle_channel_param { group: 2 }',
        [(1, 3, 2, 2)],
        "group 2 must divide the channels of a bottom of 1x3x2x2",
    ),
    ('type: "ShuffleChannel" shuffle_channel_param { group: 0 }', [(1, 3)], "group 0 must divide"),
    ('type: "ShuffleChannel"', [(3,)], "group 1 must divide the channels of a bottom of 3"),
]


def test_one_channel_of_each_group_follows_the_other() -> None:
    layer = build_layer('type: "ShuffleChannel" shuffle_channel_param { group: 2 }', [(1, 6)])
    tops, _ = run(layer, [torch.arange(6.0)[None]])
    assert tops[0].tolist() == [[0, 3, 1, 4, 2, 5]]
