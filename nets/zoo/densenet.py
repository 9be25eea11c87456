"""DenseNet-121: Huang et al. 2017, "Densely connected convolutional networks", Table 1.

With the names of shicai/DenseNet-Caffe: 7,978,856 parameters (as torchvision lists them), the scales and shifts of the
normalisation among them, its running statistics not.
"""

from imae.nets.zoo.blocks import MSRA, concat, images, normalise, normalised, pool, scored
from imae.prototxt_like.net_spec import L, NetSpec, Top, named
from imae.prototxt_like.schema import NetParameter

BLOCKS = (6, 12, 24, 16)
GROWTH = 32


def densenet121(*, classes: int = 1000, batch: int = 32) -> NetParameter:
    """Return DenseNet-121 for `batch` images of 3 x 224 x 224; its scores are `batch` x `classes` x 1 x 1."""
    n = NetSpec()
    data, label = images(n, batch, 3, 224, 224)
    top = normalised(n, "conv1", data, 64, 7, stride=2, bn="{}/bn", scale="{}/scale")
    top, channels = pool(n, "pool1", top, pad=1, round_mode="FLOOR"), 64
    for block, layers in enumerate(BLOCKS, 2):
        for i in range(1, layers + 1):
            name = f"{block}_{i}"
            new = _convolution(n, f"conv{name}/x1", top, 4 * GROWTH)
            top = concat(n, f"concat_{name}", top, _convolution(n, f"conv{name}/x2", new, GROWTH, 3))
        channels += layers * GROWTH
        if block < 1 + len(BLOCKS):
            channels //= 2
            top = pool(n, f"pool{block}", _convolution(n, f"conv{block}_blk", top, channels), "AVE", 2)
    top = pool(n, "pool5", _normalise(n, "conv5_blk", top), "AVE", 0)
    n.fc6 = scores = L.Convolution(top, num_output=classes, kernel_size=1, weight_filler=MSRA)
    scored(n, scores, label)
    return n.to_proto("DenseNet-121")


def _convolution(n: NetSpec, name: str, bottom: Top, channels: int, kernel: int = 1) -> Top:
    """BatchNorm, Scale, ReLU, then the convolution, which keeps the size."""
    return named(
        n,
        name,
        L.Convolution(
            _normalise(n, name, bottom),
            num_output=channels,
            kernel_size=kernel,
            pad=kernel // 2,
            bias_term=False,
            weight_filler=MSRA,
        ),
    )


def _normalise(n: NetSpec, name: str, bottom: Top) -> Top:
    return normalise(n, bottom, f"{name}/bn", f"{name}/scale", f"{name}/relu", in_place=False)
