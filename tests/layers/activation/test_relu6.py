"""ReLU6, as MobileNet's Caffe has it."""

from layer_cases import Case, normal

CASES = [Case('type: "ReLU6"', [lambda draw: 5 * normal(3, 4)(draw)], lambda xs, blobs: [xs[0].clamp(0, 6)])]
