"""Softmax."""

from layer_cases import Case, normal

CASES = [
    Case('type: "Softmax"', [normal(3, 4)], lambda xs, blobs: [xs[0].softmax(1)]),
    Case('type: "Softmax"', [lambda draw: 20 * draw.normal(2, 4, 3, 2)], lambda xs, blobs: [xs[0].softmax(1)]),
    Case('type: "Softmax" softmax_param { axis: -1 }', [normal(2, 3, 4)], lambda xs, blobs: [xs[0].softmax(2)]),
    Case('type: "Softmax" softmax_param { axis: 0 }', [normal(3, 4)], lambda xs, blobs: [xs[0].softmax(0)]),
]

MISTAKES = [
    ('type: "Softmax" softmax_param { axis: -3 }', [(2, 3)], "axis -3 is out of range for a bottom of shape 2x3"),
]
