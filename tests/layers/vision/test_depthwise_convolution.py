"""DepthwiseConvolution and ConvolutionDepthwise, as MobileNet's Caffes have them."""

import torch.nn.functional as F
from layer_cases import Case, normal


def depthwise(type: str, group: str = "") -> Case:
    return Case(
        f'type: "{type}" convolution_param {{ num_output: 3 kernel_size: 3 pad: 1 stride: 2 {group} }}',
        [normal(2, 3, 5, 6)],
        lambda xs, blobs: [F.conv2d(xs[0], blobs[0], blobs[1], stride=2, padding=1, groups=3)],
    )


CASES = [depthwise("DepthwiseConvolution", "group: 3"), depthwise("ConvolutionDepthwise")]
MISTAKES = [
    (
        'type: "ConvolutionDepthwise" convolution_param { num_output: 2 kernel_size: 1 }',
        [(1, 3, 2, 2)],
        "num_output 2 must be the number of channels, 3",
    ),
]
