"""Sigmoid."""

from layer_cases import Case, normal

CASES = [
    Case(f'type: "Sigmoid" sigmoid_param {{ {engine} }}', [normal(4, 5)], lambda xs, blobs: [1 / (1 + (-xs[0]).exp())])
    for engine in ("", "engine: CUDNN")
]
