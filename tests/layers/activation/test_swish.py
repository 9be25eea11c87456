"""Swish."""

from layer_cases import Case, normal


def swish(settings: str, beta: float) -> Case:
    return Case(
        f'type: "Swish" swish_param {{ {settings} }}',
        [normal(4, 5)],
        lambda xs, blobs: [xs[0] / (1 + (-beta * xs[0]).exp())],
    )


CASES = [swish("", 1), swish("beta: 1.5", 1.5), swish("beta: 0", 0), swish("beta: -0.5", -0.5)]
