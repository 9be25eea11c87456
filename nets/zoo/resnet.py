"""ResNet-50 and -101: He et al. 2016, "Deep residual learning for image recognition", Table 1 and section 4.1.

With the names of KaimingHe/deep-residual-networks, and its stride in the first 1 x 1 convolution of a stage: 25,557,032
and 44,549,160 parameters, the scales and shifts of the normalisation among them, its running statistics not. (The
published ResNet-50 has 64 more, biases of conv1 before a normalisation.)
"""

from typing import Any

from imae.nets.zoo.blocks import images, inner_product, normalised, pool, relu, scored
from imae.prototxt_like.net_spec import L, NetSpec, Top
from imae.prototxt_like.schema import NetParameter

WIDTHS = (64, 128, 256, 512)


def resnet50(*, classes: int = 1000, batch: int = 32) -> NetParameter:
    """Return ResNet-50 for `batch` images of 3 x 224 x 224."""
    return _net("ResNet-50", ("abc", "abcd", "abcdef", "abc"), classes, batch)


def resnet101(*, classes: int = 1000, batch: int = 32) -> NetParameter:
    """Return ResNet-101 for `batch` images of 3 x 224 x 224."""
    third, fourth = (["a", *(f"b{i}" for i in range(1, count))] for count in (4, 23))
    return _net("ResNet-101", ("abc", third, fourth, "abc"), classes, batch)


def _net(name: str, stages: tuple[str | list[str], ...], classes: int, batch: int) -> NetParameter:
    n = NetSpec()
    data, label = images(n, batch, 3, 224, 224)
    top = normalised(n, "conv1", data, 64, 7, stride=2, bn="bn_{}", scale="scale_{}")
    top = pool(n, "pool1", top)
    for stage, (width, blocks) in enumerate(zip(WIDTHS, stages, strict=True), 2):
        for block in blocks:
            first = block == "a"
            top = _block(n, f"{stage}{block}", top, width, stride=2 if first and stage > 2 else 1, project=first)
    scored(n, inner_product(n, "fc1000", pool(n, "pool5", top, "AVE", 7, 1), classes), label)
    return n.to_proto(name)


def _block(n: NetSpec, name: str, bottom: Top, width: int, *, stride: int, project: bool) -> Top:
    """Add a bottleneck, Figure 5 at the right, and its shortcut, a projection where the width changes."""
    shortcut = bottom
    if project:
        shortcut = _convolution(n, name, "branch1", bottom, 4 * width, stride=stride, rectified=False)
    top = _convolution(n, name, "branch2a", bottom, width, stride=stride)
    top = _convolution(n, name, "branch2b", top, width, 3)
    top = _convolution(n, name, "branch2c", top, 4 * width, rectified=False)
    n[f"res{name}"] = L.Eltwise(shortcut, top)
    return relu(n, f"res{name}_relu", n[f"res{name}"])


def _convolution(n: NetSpec, block: str, branch: str, bottom: Top, channels: int, kernel: int = 1, **more: Any) -> Top:
    suffix = f"{block}_{branch}"
    more |= {"bn": f"bn{suffix}", "scale": f"scale{suffix}"}
    return normalised(n, f"res{suffix}", bottom, channels, kernel, **more)
