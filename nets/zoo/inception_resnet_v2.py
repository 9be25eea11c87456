"""Inception-ResNet-v2: Szegedy et al. 2016, "Inception-v4, Inception-ResNet and the impact of residual connections".

The net that its authors published, which is larger than the paper's figures: 10, 20 and 10 blocks behind the stem of
Inception-v3. With the names of cls/inception/deploy_inception-resnet-v2.prototxt of soeaver/caffe-model: 55,843,464
parameters, scales and shifts of the normalisation among them; the authors' code has no scales.
"""

from imae.nets.zoo.blocks import MSRA, concat, images, relu
from imae.nets.zoo.inception_blocks import Step, chain, classified, halved, pooled
from imae.nets.zoo.inception_v3 import stem
from imae.prototxt_like.net_spec import L, NetSpec, Top
from imae.prototxt_like.schema import NetParameter

Branches = tuple[tuple[Step, ...], ...]
A: Branches = (
    (("1x1", 32),),
    (("3x3_reduce", 32), ("3x3", 32)),
    (("3x3_2_reduce", 32), ("3x3_2", 48), ("3x3_3", 64)),
)
REDUCTION_A: Branches = (
    (("3x3", 384, 2),),
    (("3x3_2_reduce", 256), ("3x3_2", 256), ("3x3_3", 384, 2)),
)
B: Branches = (
    (("1x1", 192),),
    (("1x7_reduce", 128), ("1x7", 160), ("7x1", 192)),
)
REDUCTION_B: Branches = (
    (("3x3_reduce", 256), ("3x3", 384, 2)),
    (("3x3_2_reduce", 256), ("3x3_2", 288, 2)),
    (("3x3_3_reduce", 256), ("3x3_3", 288), ("3x3_4", 320, 2)),
)
C: Branches = (
    (("1x1", 192),),
    (("1x3_reduce", 192), ("1x3", 224), ("3x1", 256)),
)


def inception_resnet_v2(*, classes: int = 1000, batch: int = 32) -> NetParameter:
    """Return Inception-ResNet-v2 for `batch` images of 3 x 299 x 299."""
    n = NetSpec()
    data, label = images(n, batch, 3, 299, 299)
    top = _mixed(n, stem(n, data))
    for i in range(1, 11):
        top = _residual(n, f"a{i}", top, A, 320, 0.17)
    top = _reduced(n, "reduction_a", top, REDUCTION_A)
    for i in range(1, 21):
        top = _residual(n, f"b{i}", top, B, 1088, 0.1)
    top = _reduced(n, "reduction_b", top, REDUCTION_B)
    for i in range(1, 10):
        top = _residual(n, f"c{i}", top, C, 2080, 0.2)
    top = _residual(n, "c10", top, C, 2080, 1.0, rectified=False)
    classified(n, chain(n, "conv6", top, ("1x1", 1536)), label, classes)
    return n.to_proto("Inception-ResNet-v2")


def _mixed(n: NetSpec, bottom: Top) -> Top:
    """A module as Inception-v3's first, between the stem and the residual blocks."""
    name = "conv5"
    return concat(
        n,
        "stem_concat",
        chain(n, name, bottom, ("1x1", 96)),
        chain(n, name, bottom, ("5x5_reduce", 48), ("5x5", 64)),
        chain(n, name, bottom, ("3x3_reduce", 64), ("3x3", 96), ("3x3_2", 96)),
        pooled(n, name, bottom, "pool_ave", ("1x1_ave", 64)),
    )


def _residual(
    n: NetSpec, block: str, bottom: Top, branches: Branches, channels: int, scale: float, *, rectified: bool = True
) -> Top:
    """Figures 16, 17 and 19: the branches side by side, a linear 1 x 1 convolution, and the sum with `scale` of it."""
    name = f"inception_resnet_v2_{block}"
    both = concat(n, f"{name}_concat", *(chain(n, name, bottom, *branch) for branch in branches))
    n[f"{name}_up"] = up = L.Convolution(both, num_output=channels, kernel_size=1, weight_filler=MSRA)
    n[f"{name}_residual_eltwise"] = top = L.Eltwise(bottom, up, operation="SUM", coeff=[1.0, scale])
    return relu(n, f"{name}_residual_eltwise_relu", top) if rectified else top


def _reduced(n: NetSpec, name: str, bottom: Top, branches: Branches) -> Top:
    """Figures 7 and 18: the branches and the maxima, at stride 2."""
    halves = [chain(n, name, bottom, *branch) for branch in branches]
    return concat(n, f"{name}_concat", *halves, halved(n, name, bottom))
