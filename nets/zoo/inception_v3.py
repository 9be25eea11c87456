"""Inception-v3: Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", Table 1.

The net that its authors published, in the form of torchvision's `inception_v3`, which lists 27,161,264 parameters: here
those of training, 23,834,568 without the auxiliary classifier. With the names of
cls/inception/deploy_inception-v3.prototxt of soeaver/caffe-model, whose last module takes maxima instead of means.
"""

from imae.nets.zoo.blocks import concat, images, inner_product, only_in_training, pool
from imae.nets.zoo.inception_blocks import chain, classified, forked, halved, pooled
from imae.prototxt_like.net_spec import L, NetSpec, Top
from imae.prototxt_like.schema import NetParameter

A_PROJECTIONS = (32, 64, 64)
B_WIDTHS = (128, 160, 160, 192)
C_MODULES = 2


def inception_v3(*, classes: int = 1000, batch: int = 32) -> NetParameter:
    """Return Inception-v3 for `batch` images of 3 x 299 x 299."""
    n = NetSpec()
    data, label = images(n, batch, 3, 299, 299)
    top = stem(n, data)
    for i, projection in enumerate(A_PROJECTIONS, 1):
        top = _a(n, f"inception_a{i}", top, projection)
    top = _reduction_a(n, "reduction_a", top)
    for i, width in enumerate(B_WIDTHS, 1):
        top = _b(n, f"inception_b{i}", top, width)
    _auxiliary(n, top, label, classes)
    top = _reduction_b(n, "reduction_b", top)
    for i in range(1, C_MODULES + 1):
        top = _c(n, f"inception_c{i}", top)
    classified(n, top, label, classes)
    return only_in_training(n.to_proto("Inception-v3"), "auxiliary")


def stem(n: NetSpec, data: Top) -> Top:
    """Add the first layers, from 3 x 299 x 299 to 192 x 35 x 35."""
    top = chain(n, "conv1", data, ("3x3_s2", 32, 2))
    top = chain(n, "conv2", top, ("3x3_s1", 32, 1))
    top = pool(n, "pool1_3x3_s2", chain(n, "conv3", top, ("3x3_s1", 64)))
    return pool(n, "pool2_3x3_s2", chain(n, "conv4", top, ("3x3_reduce", 80), ("3x3", 192, 1)))


def _a(n: NetSpec, name: str, bottom: Top, projection: int) -> Top:
    """Figure 5."""
    return concat(
        n,
        f"{name}_output",
        chain(n, name, bottom, ("1x1", 64)),
        chain(n, name, bottom, ("5x5_reduce", 48), ("5x5", 64)),
        chain(n, name, bottom, ("3x3_reduce", 64), ("3x3_1", 96), ("3x3_2", 96)),
        pooled(n, name, bottom, "pool", ("pool_proj", projection)),
    )


def _reduction_a(n: NetSpec, name: str, bottom: Top) -> Top:
    """Figure 10."""
    return concat(
        n,
        f"{name}_concat",
        chain(n, name, bottom, ("3x3", 384, 2)),
        chain(n, name, bottom, ("3x3_2_reduce", 64), ("3x3_2", 96), ("3x3_3", 96, 2)),
        halved(n, name, bottom),
    )


def _b(n: NetSpec, name: str, bottom: Top, width: int) -> Top:
    """Figure 6, n = 7."""
    long = ("7x1_reduce", width), ("7x1_2", width), ("1x7_2", width), ("7x1_3", width), ("1x7_3", 192)
    return concat(
        n,
        f"{name}_concat",
        chain(n, name, bottom, ("1x1_2", 192)),
        chain(n, name, bottom, ("1x7_reduce", width), ("1x7", width), ("7x1", 192)),
        chain(n, name, bottom, *long),
        pooled(n, name, bottom, "pool_ave", ("1x1", 192)),
    )


def _auxiliary(n: NetSpec, bottom: Top, label: Top, classes: int) -> None:
    """Figure 8; its loss counts 0.4, as in the authors' code."""
    top = chain(n, "auxiliary", pool(n, "auxiliary_pool", bottom, "AVE", 5, 3), ("1x1", 128), ("5x5", 768, 1))
    n.auxiliary_loss = L.SoftmaxWithLoss(inner_product(n, "auxiliary_classifier", top, classes), label, loss_weight=0.4)


def _reduction_b(n: NetSpec, name: str, bottom: Top) -> Top:
    return concat(
        n,
        f"{name}_concat",
        chain(n, name, bottom, ("3x3_reduce", 192), ("3x3", 320, 2)),
        chain(n, name, bottom, ("1x7_reduce", 192), ("1x7", 192), ("7x1", 192), ("3x3_2", 192, 2)),
        halved(n, name, bottom),
    )


def _c(n: NetSpec, name: str, bottom: Top) -> Top:
    """Figure 7."""
    return concat(
        n,
        f"{name}_concat",
        chain(n, name, bottom, ("1x1_2", 320)),
        *forked(n, name, bottom, ("1x3_reduce", 384), ("1x3", 384), ("3x1", 384)),
        *forked(n, name, bottom, ("3x3_reduce", 448), ("3x3", 384), ("1x3_2", 384), ("3x1_2", 384)),
        pooled(n, name, bottom, "pool", ("1x1", 192)),
    )
