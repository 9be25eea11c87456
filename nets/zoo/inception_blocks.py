"""What the Inception nets of 2015 and 2016 are built of: branches of normalised convolutions, side by side.

A convolution is a `Step`: what its name ends in, its channels, and a stride where it has one. Its kernel is what the
name says (`1x7_2`: 1 x 7), 1 x 1 where it says `reduce` or none. It keeps the size; with a stride, 1 too, it is not
padded.
"""

import re
from typing import Any

from imae.nets.zoo.blocks import Size, dropout, inner_product, normalised, pool, scored
from imae.prototxt_like.net_spec import NetSpec, Top

Step = tuple[str, int] | tuple[str, int, int]
EPS = 1e-3
"""Of BatchNorm, in the nets that their authors published."""


def chain(n: NetSpec, name: str, bottom: Top, *steps: Step) -> Top:
    """Add convolutions one after the other, and return the last's top."""
    for suffix, channels, *stride in steps:
        geometry: dict[str, Any] = {"stride": stride[0], "pad": False} if stride else {}
        bottom = normalised(n, f"{name}_{suffix}", bottom, channels, _kernel(suffix), eps=EPS, **geometry)
    return bottom


def forked(n: NetSpec, name: str, bottom: Top, *steps: Step) -> tuple[Top, Top]:
    """Add a chain whose last two convolutions stand side by side."""
    *stem, left, right = steps
    bottom = chain(n, name, bottom, *stem)
    return chain(n, name, bottom, left), chain(n, name, bottom, right)


def pooled(n: NetSpec, name: str, bottom: Top, suffix: str, step: Step) -> Top:
    """Add a branch that averages, then convolves."""
    return chain(n, name, pool(n, f"{name}_{suffix}", bottom, "AVE", stride=1, pad=1), step)


def halved(n: NetSpec, name: str, bottom: Top) -> Top:
    """Add a branch of the maxima at stride 2."""
    return pool(n, f"{name}_pool", bottom)


def classified(n: NetSpec, top: Top, label: Top, classes: int) -> None:
    """Add the mean over the image, Dropout, the scores and their loss."""
    top = dropout(n, "pool_8x8_s1_drop", pool(n, "pool_8x8_s1", top, "AVE", 0), 0.2)
    scored(n, inner_product(n, "classifier", top, classes), label)


def _kernel(suffix: str) -> Size:
    found = re.match(r"(\d)x(\d)(?!.*reduce)", suffix)
    return (int(found[1]), int(found[2])) if found else 1
