"""Normalize, as SSD's Caffe has it."""

from layer_cases import Case, normal


def normalize(settings: str, axes: tuple[int, ...], shape: tuple[int, ...], eps: float = 1e-10) -> Case:
    return Case(
        f'type: "Normalize" norm_param {{ {settings} }}',
        [normal(*shape)],
        lambda xs, blobs: [
            blobs[0].view(-1, *[1] * (len(shape) - 2)) * xs[0] / (xs[0].square().sum(axes, keepdim=True) + eps).sqrt()
        ],
    )


CASES = [
    normalize("", (1, 2, 3), (2, 3, 4, 2)),
    normalize("across_spatial: false channel_shared: false", (1,), (2, 3, 4, 2)),
    normalize("across_spatial: false eps: 0.5", (1,), (2, 3, 4, 2), 0.5),
    normalize("channel_shared: false scale_filler { type: 'constant' value: 20 }", (1, 2, 3), (2, 3, 2, 2)),
    normalize("", (1,), (2, 3)),
]
MISTAKES = [('type: "Normalize"', [(3,)], "needs channels, found a bottom of 3")]
