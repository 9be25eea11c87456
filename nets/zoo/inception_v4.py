"""Inception-v4: Szegedy et al. 2016, "Inception-v4, Inception-ResNet and the impact of residual connections", Figure 9.

With the names of cls/inception/deploy_inception-v4.prototxt of soeaver/caffe-model: 42,679,816 parameters.
"""

from imae.nets.zoo.blocks import concat, images, pool
from imae.nets.zoo.inception_blocks import chain, classified, forked, halved, pooled
from imae.prototxt_like.net_spec import NetSpec, Top
from imae.prototxt_like.schema import NetParameter

A_MODULES, B_MODULES, C_MODULES = 4, 7, 3


def inception_v4(*, classes: int = 1000, batch: int = 32) -> NetParameter:
    """Return Inception-v4 for `batch` images of 3 x 299 x 299."""
    n = NetSpec()
    data, label = images(n, batch, 3, 299, 299)
    top = _stem(n, data)
    for i in range(1, A_MODULES + 1):
        top = _a(n, f"inception_a{i}", top)
    top = _reduction_a(n, "reduction_a", top)
    for i in range(1, B_MODULES + 1):
        top = _b(n, f"inception_b{i}", top)
    top = _reduction_b(n, "reduction_b", top)
    for i in range(1, C_MODULES + 1):
        top = _c(n, f"inception_c{i}", top)
    classified(n, top, label, classes)
    return n.to_proto("Inception-v4")


def _stem(n: NetSpec, data: Top) -> Top:
    """Figure 3: 3 x 299 x 299 to 384 x 35 x 35."""
    top = chain(n, "conv1", data, ("3x3_s2", 32, 2))
    top = chain(n, "conv3", chain(n, "conv2", top, ("3x3_s1", 32, 1)), ("3x3_s1", 64))
    name = "inception_stem1"
    top = concat(n, name, pool(n, f"{name}_pool", top), chain(n, name, top, ("3x3_s2", 96, 2)))
    name = "inception_stem2"
    short = chain(n, name, top, ("3x3_reduce", 64), ("3x3", 96, 1))
    long = chain(n, name, top, ("1x7_reduce", 64), ("1x7", 64), ("7x1", 64), ("3x3_2", 96, 1))
    top, name = concat(n, name, short, long), "inception_stem3"
    return concat(n, name, chain(n, name, top, ("3x3_s2", 192, 2)), pool(n, f"{name}_pool", top))


def _a(n: NetSpec, name: str, bottom: Top) -> Top:
    """Figure 4."""
    return concat(
        n,
        f"{name}_concat",
        chain(n, name, bottom, ("1x1_2", 96)),
        chain(n, name, bottom, ("3x3_reduce", 64), ("3x3", 96)),
        chain(n, name, bottom, ("3x3_2_reduce", 64), ("3x3_2", 96), ("3x3_3", 96)),
        pooled(n, name, bottom, "pool_ave", ("1x1", 96)),
    )


def _reduction_a(n: NetSpec, name: str, bottom: Top) -> Top:
    """Figure 7, k = 192, l = 224, m = 256, n = 384."""
    return concat(
        n,
        f"{name}_concat",
        chain(n, name, bottom, ("3x3", 384, 2)),
        chain(n, name, bottom, ("3x3_2_reduce", 192), ("3x3_2", 224), ("3x3_3", 256, 2)),
        halved(n, name, bottom),
    )


def _b(n: NetSpec, name: str, bottom: Top) -> Top:
    """Figure 5."""
    long = ("7x1_2_reduce", 192), ("7x1_2", 192), ("1x7_2", 224), ("7x1_3", 224), ("1x7_3", 256)
    return concat(
        n,
        f"{name}_concat",
        chain(n, name, bottom, ("1x1_2", 384)),
        chain(n, name, bottom, ("1x7_reduce", 192), ("1x7", 224), ("7x1", 256)),
        chain(n, name, bottom, *long),
        pooled(n, name, bottom, "pool_ave", ("1x1", 128)),
    )


def _reduction_b(n: NetSpec, name: str, bottom: Top) -> Top:
    """Figure 8."""
    return concat(
        n,
        f"{name}_concat",
        chain(n, name, bottom, ("3x3_reduce", 192), ("3x3", 192, 2)),
        chain(n, name, bottom, ("1x7_reduce", 256), ("1x7", 256), ("7x1", 320), ("3x3_2", 320, 2)),
        halved(n, name, bottom),
    )


def _c(n: NetSpec, name: str, bottom: Top) -> Top:
    """Figure 6."""
    return concat(
        n,
        f"{name}_concat",
        chain(n, name, bottom, ("1x1_2", 256)),
        *forked(n, name, bottom, ("1x1_3", 384), ("1x3", 256), ("3x1", 256)),
        *forked(n, name, bottom, ("1x1_4", 384), ("3x1_2", 448), ("1x3_2", 512), ("1x3_3", 256), ("3x1_3", 256)),
        pooled(n, name, bottom, "pool_ave", ("1x1", 256)),
    )
