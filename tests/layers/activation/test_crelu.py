"""CReLU, as PVANet's Caffe has it."""

import torch
from layer_cases import Case, normal


def crelu(*shape: int) -> Case:
    return Case('type: "CReLU"', [normal(*shape)], lambda xs, blobs: [torch.cat([xs[0], -xs[0]], 1).relu()])


CASES = [crelu(2, 3, 2, 2), crelu(3, 2)]
MISTAKES = [('type: "CReLU"', [(3,)], "needs channels, found a bottom of 3")]
