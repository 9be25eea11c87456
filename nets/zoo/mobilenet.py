"""MobileNet: Howard et al. 2017, "MobileNets: efficient convolutional neural networks for mobile vision", Table 1.

With the names of shicai/MobileNet-Caffe: 4,231,976 parameters (Table 4: 4.2 million), the scales and shifts of the
normalisation among them, its running statistics not.
"""

from typing import Any

from imae.nets.zoo.blocks import MSRA, images, normalised, pool, scored
from imae.prototxt_like.net_spec import L, NetSpec, Top
from imae.prototxt_like.schema import NetParameter

PAIRS = {
    # channels behind the pair, stride of its depthwise convolution
    "2_1": (64, 1),
    "2_2": (128, 2),
    "3_1": (128, 1),
    "3_2": (256, 2),
    "4_1": (256, 1),
    "4_2": (512, 2),
    **{f"5_{i}": (512, 1) for i in range(1, 6)},
    "5_6": (1024, 2),
    "6": (1024, 1),
}


def mobilenet(*, classes: int = 1000, batch: int = 32) -> NetParameter:
    """Return MobileNet for `batch` images of 3 x 224 x 224; its scores are `batch` x `classes` x 1 x 1."""
    n = NetSpec()
    data, label = images(n, batch, 3, 224, 224)
    top, channels = _convolution(n, "conv1", data, 32, 3, stride=2), 32
    for name, (width, stride) in PAIRS.items():
        top = _convolution(n, f"conv{name}/dw", top, channels, 3, stride=stride, group=channels)
        top, channels = _convolution(n, f"conv{name}/sep", top, width), width
    n.fc7 = scores = L.Convolution(
        pool(n, "pool6", top, "AVE", 0), num_output=classes, kernel_size=1, weight_filler=MSRA
    )
    scored(n, scores, label)
    return n.to_proto("MobileNet")


def _convolution(n: NetSpec, name: str, bottom: Top, channels: int, kernel: int = 1, **geometry: Any) -> Top:
    return normalised(n, name, bottom, channels, kernel, bn="{}/bn", scale="{}/scale", **geometry)
