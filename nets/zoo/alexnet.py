"""AlexNet and CaffeNet: Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional nets".

In one tower, with groups where the paper's two GPUs met no other, as BVLC published them (models/bvlc_alexnet and
models/bvlc_reference_caffenet of BVLC/caffe), whose layers have these names: 60,965,224 parameters.
"""

from imae.nets.zoo.blocks import constant, convolution, dropout, gaussian, images, inner_product, pool, relu, scored
from imae.prototxt_like.net_spec import L, NetSpec, Top, named
from imae.prototxt_like.schema import NetParameter

CONVOLUTIONS = (
    # channels, kernel, stride, pad, groups
    (96, 11, 4, 0, 1),
    (256, 5, 1, 2, 2),
    (384, 3, 1, 1, 1),
    (384, 3, 1, 1, 2),
    (256, 3, 1, 1, 2),
)
BIASED = (2, 4, 5)
"""The convolutions whose biases begin above zero, so that their ReLUs do."""


def alexnet(*, classes: int = 1000, batch: int = 256) -> NetParameter:
    """Return AlexNet for `batch` images of 3 x 227 x 227: responses are normalised, then pooled."""
    return _net("AlexNet", classes, batch, pool_first=False, bias=0.1)


def caffenet(*, classes: int = 1000, batch: int = 256) -> NetParameter:
    """Return CaffeNet for `batch` images of 3 x 227 x 227: responses are pooled, then normalised."""
    return _net("CaffeNet", classes, batch, pool_first=True, bias=1.0)


def _net(name: str, classes: int, batch: int, *, pool_first: bool, bias: float) -> NetParameter:
    n = NetSpec()
    data, label = images(n, batch, 3, 227, 227)
    top = features(n, data, pool_first=pool_first, bias=bias)
    scored(n, inner_product(n, "fc8", top, classes, weight_filler=gaussian(0.01)), label)
    return n.to_proto(name)


def features(n: NetSpec, data: Top, *, pool_first: bool, bias: float) -> Top:
    """Add all layers from the images to the 4,096 features `fc7`, and return these."""
    top = data
    for i, (channels, kernel, stride, pad, group) in enumerate(CONVOLUTIONS, 1):
        geometry = {"stride": stride, "pad": pad, "group": group}
        start = constant(bias if i in BIASED else 0)
        top = convolution(
            n, f"conv{i}", top, channels, kernel, weight_filler=gaussian(0.01), bias_filler=start, **geometry
        )
        if i < 3:
            top = _norm(n, i, pool(n, f"pool{i}", top)) if pool_first else pool(n, f"pool{i}", _norm(n, i, top))
    top = pool(n, "pool5", top)
    for i in (6, 7):
        top = inner_product(n, f"fc{i}", top, 4096, weight_filler=gaussian(0.005), bias_filler=constant(bias))
        top = dropout(n, f"drop{i}", relu(n, f"relu{i}", top))
    return top


def _norm(n: NetSpec, i: int, bottom: Top) -> Top:
    """Section 3.3 of the paper."""
    return named(n, f"norm{i}", L.LRN(bottom, local_size=5, alpha=1e-4, beta=0.75))
