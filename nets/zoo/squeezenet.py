"""SqueezeNet 1.1: Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", made cheaper.

As forresti/SqueezeNet has it in SqueezeNet_v1.1, with its names: 1,235,496 parameters.
"""

from imae.nets.zoo.blocks import concat, convolution, dropout, gaussian, images, pool, scored
from imae.prototxt_like.net_spec import NetSpec, Top
from imae.prototxt_like.schema import NetParameter

SQUEEZED = (16, 16, 32, 32, 48, 48, 64, 64)
"""Channels between the modules fire2 to fire9; each expands them to four times as many of either kernel."""


def squeezenet(*, classes: int = 1000, batch: int = 32) -> NetParameter:
    """Return SqueezeNet 1.1 for `batch` images of 3 x 227 x 227; its scores are `batch` x `classes` x 1 x 1."""
    n = NetSpec()
    data, label = images(n, batch, 3, 227, 227)
    top = pool(n, "pool1", convolution(n, "conv1", data, 64, 3, stride=2))
    for i, channels in enumerate(SQUEEZED, 2):
        top = _fire(n, f"fire{i}", top, channels)
        if i in (3, 5):
            top = pool(n, f"pool{i}", top)
    top = convolution(n, "conv10", dropout(n, "drop9", top), classes, weight_filler=gaussian(0.01))
    scored(n, pool(n, "pool10", top, "AVE", 0), label)
    return n.to_proto("SqueezeNet 1.1")


def _fire(n: NetSpec, name: str, bottom: Top, channels: int) -> Top:
    """Figure 1 of the paper."""
    squeezed = convolution(n, f"{name}/squeeze1x1", bottom, channels)
    one = convolution(n, f"{name}/expand1x1", squeezed, 4 * channels)
    return concat(n, f"{name}/concat", one, convolution(n, f"{name}/expand3x3", squeezed, 4 * channels, 3, pad=1))
