"""TanH."""

from layer_cases import Case, normal

CASES = [
    Case(
        f'type: "TanH" tanh_param {{ {engine} }}',
        [normal(4, 5)],
        lambda xs, blobs: [(xs[0].exp() - (-xs[0]).exp()) / (xs[0].exp() + (-xs[0]).exp())],
    )
    for engine in ("", "engine: CAFFE")
]
