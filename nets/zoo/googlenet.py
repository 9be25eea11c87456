"""GoogLeNet: Szegedy et al. 2015, "Going deeper with convolutions", Table 1 and Figure 3.

As BVLC published it (models/bvlc_googlenet of BVLC/caffe), with its names: 6,998,552 parameters, in training 13,378,280
with those of the two auxiliary classifiers, which are in phase TRAIN alone here.
"""

from imae.nets.zoo.blocks import (
    concat,
    constant,
    convolution,
    dropout,
    images,
    inner_product,
    only_in_training,
    pool,
    relu,
    scored,
)
from imae.prototxt_like.net_spec import L, NetSpec, Top, named
from imae.prototxt_like.schema import NetParameter

MODULES = {
    # 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
AUXILIARY = {"4a": "loss1", "4d": "loss2"}
"""Behind which modules a classifier branches off; its loss counts 0.3."""
BIAS = constant(0.2)


def googlenet(*, classes: int = 1000, batch: int = 32) -> NetParameter:
    """Return GoogLeNet for `batch` images of 3 x 224 x 224."""
    n = NetSpec()
    data, label = images(n, batch, 3, 224, 224)
    top = _convolution(n, "conv1/7x7_s2", data, 64, 7, stride=2)
    top = _norm(n, "pool1/norm1", pool(n, "pool1/3x3_s2", top))
    top = _convolution(n, "conv2/3x3", _convolution(n, "conv2/3x3_reduce", top, 64), 192, 3)
    top = pool(n, "pool2/3x3_s2", _norm(n, "conv2/norm2", top))
    for name, widths in MODULES.items():
        top = _inception(n, f"inception_{name}", top, widths)
        if name in AUXILIARY:
            _auxiliary(n, AUXILIARY[name], top, label, classes)
        if name in ("3b", "4e"):
            top = pool(n, f"pool{int(name[0])}/3x3_s2", top)
    top = dropout(n, "pool5/drop_7x7_s1", pool(n, "pool5/7x7_s1", top, "AVE", 7, 1), 0.4)
    scored(n, inner_product(n, "loss3/classifier", top, classes), label)
    return only_in_training(n.to_proto("GoogLeNet"), "loss1/", "loss2/")


def _inception(n: NetSpec, name: str, bottom: Top, widths: tuple[int, ...]) -> Top:
    one, three_reduce, three, five_reduce, five, projection = widths
    return concat(
        n,
        f"{name}/output",
        _convolution(n, f"{name}/1x1", bottom, one),
        _convolution(n, f"{name}/3x3", _convolution(n, f"{name}/3x3_reduce", bottom, three_reduce), three, 3),
        _convolution(n, f"{name}/5x5", _convolution(n, f"{name}/5x5_reduce", bottom, five_reduce), five, 5),
        _convolution(n, f"{name}/pool_proj", pool(n, f"{name}/pool", bottom, stride=1, pad=1), projection),
    )


def _auxiliary(n: NetSpec, name: str, bottom: Top, label: Top, classes: int) -> None:
    top = _convolution(n, f"{name}/conv", pool(n, f"{name}/ave_pool", bottom, "AVE", 5, 3), 128)
    top = relu(n, f"{name}/relu_fc", inner_product(n, f"{name}/fc", top, 1024, bias_filler=BIAS))
    top = inner_product(n, f"{name}/classifier", dropout(n, f"{name}/drop_fc", top, 0.7), classes)
    n[f"{name}/loss"] = L.SoftmaxWithLoss(top, label, loss_weight=0.3)


def _convolution(n: NetSpec, name: str, bottom: Top, channels: int, kernel: int = 1, stride: int = 1) -> Top:
    return convolution(n, name, bottom, channels, kernel, stride=stride, pad=kernel // 2, bias_filler=BIAS)


def _norm(n: NetSpec, name: str, bottom: Top) -> Top:
    return named(n, name, L.LRN(bottom, local_size=5, alpha=1e-4, beta=0.75))
