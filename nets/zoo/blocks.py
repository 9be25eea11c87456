"""What the well-known nets are built of: inputs, convolutions plain and normalised, pooling, the classifying end."""

from typing import Any

from imae.nets.residual import BATCH_NORM_FRACTION
from imae.prototxt_like.net_spec import L, NetSpec, Top, named
from imae.prototxt_like.schema import TRAIN, NetParameter

WEIGHT_AND_BIAS = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}]
"""Biases learn twice as fast and do not decay, as in the nets that BVLC published."""
XAVIER, MSRA = {"type": "xavier"}, {"type": "msra"}
Size = int | tuple[int, int]


def gaussian(std: float) -> dict[str, Any]:
    """Return the filler that draws from a normal distribution of this standard deviation."""
    return {"type": "gaussian", "std": std}


def constant(value: float) -> dict[str, Any]:
    """Return the filler of one value."""
    return {"type": "constant", "value": value}


def inputs(n: NetSpec, **shapes: tuple[int, ...]) -> tuple[Top, ...]:
    """Add one Input layer, with a top of each name and shape, and return its tops."""
    made = L.Input(ntop=len(shapes), shape=[{"dim": shape} for shape in shapes.values()])
    tops: tuple[Top, ...] = made if isinstance(made, tuple) else (made,)
    for name, top in zip(shapes, tops, strict=True):
        n[name] = top
    return tops


def images(n: NetSpec, batch: int, *shape: int) -> tuple[Top, ...]:
    """Add `data`, images of `shape` (C, H, W), and `label`."""
    return inputs(n, data=(batch, *shape), label=(batch,))


def convolution(n: NetSpec, name: str, bottom: Top, channels: int, kernel: int = 1, **settings: Any) -> Top:
    """Add a convolution with a bias, and its ReLU; `settings` are further ones of the convolution."""
    settings = {"param": WEIGHT_AND_BIAS, "weight_filler": XAVIER} | settings
    n[name] = L.Convolution(bottom, num_output=channels, kernel_size=kernel, **settings)
    return relu(n, f"{name}_relu", n[name])


def normalised(
    n: NetSpec,
    name: str,
    bottom: Top,
    channels: int,
    kernel: Size = 1,
    *,
    stride: int = 1,
    pad: bool = True,
    group: int = 1,
    bn: str = "{}_bn",
    scale: str = "{}_scale",
    eps: float = 1e-5,
    rectified: bool = True,
) -> Top:
    """Add a convolution without bias, BatchNorm, Scale and, by default, ReLU, in place of each other; return the top.

    With `pad` the size is kept, over the stride. `bn` and `scale` say how these layers are called.
    """
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    geometry: dict[str, Any] = {"kernel_size": height, "pad": height // 2 if pad else 0}
    if height != width:
        geometry = {"kernel_h": height, "kernel_w": width}
        geometry |= {"pad_h": height // 2, "pad_w": width // 2} if pad else {}
    if group > 1:
        geometry["group"] = group
    n[name] = L.Convolution(bottom, num_output=channels, stride=stride, bias_term=False, weight_filler=MSRA, **geometry)
    return normalise(n, n[name], bn.format(name), scale.format(name), f"{name}_relu", eps=eps, rectified=rectified)


def normalise(
    n: NetSpec,
    bottom: Top,
    bn: str,
    scale: str,
    relu_name: str,
    *,
    eps: float = 1e-5,
    rectified: bool = True,
    in_place: bool = True,
) -> Top:
    """Add BatchNorm, Scale and ReLU, called so, and return the top; not `in_place`, the bottom stays as it is."""
    n[bn] = L.BatchNorm(bottom, in_place=in_place, moving_average_fraction=BATCH_NORM_FRACTION, eps=eps)
    n[scale] = L.Scale(n[bn], bias_term=True, in_place=True)
    return relu(n, relu_name, n[scale]) if rectified else n[scale]


def relu(n: NetSpec, name: str, bottom: Top) -> Top:
    """Add a ReLU in place."""
    return named(n, name, L.ReLU(bottom, in_place=True))


def pool(n: NetSpec, name: str, bottom: Top, method: str = "MAX", kernel: int = 3, stride: int = 2, **more: Any) -> Top:
    """Add a pooling; a kernel of 0 takes the whole image."""
    window = {"kernel_size": kernel, "stride": stride} if kernel else {"global_pooling": True}
    return named(n, name, L.Pooling(bottom, pool=method, **window, **more))


def concat(n: NetSpec, name: str, *bottoms: Top) -> Top:
    """Add the channels of all bottoms, one after the other."""
    return named(n, name, L.Concat(*bottoms))


def dropout(n: NetSpec, name: str, bottom: Top, ratio: float = 0.5) -> Top:
    """Add a Dropout in place, which sets the fraction `ratio` to zero."""
    return named(n, name, L.Dropout(bottom, dropout_ratio=ratio, in_place=True))


def inner_product(n: NetSpec, name: str, bottom: Top, outputs: int, **settings: Any) -> Top:
    """Add an InnerProduct with a bias."""
    settings = {"param": WEIGHT_AND_BIAS, "weight_filler": XAVIER} | settings
    return named(n, name, L.InnerProduct(bottom, num_output=outputs, **settings))


def scored(n: NetSpec, scores: Top, label: Top) -> None:
    """Add the loss of the scores, and their accuracy in phase TEST."""
    n.loss = L.SoftmaxWithLoss(scores, label)
    n.accuracy = L.Accuracy(scores, label, include={"phase": "TEST"})


def only_in_training(net: NetParameter, *prefixes: str) -> NetParameter:
    """Give the layers whose names begin so to phase TRAIN alone; return `net`."""
    for layer in net.layer:
        if layer.name.startswith(prefixes):
            layer.include.add(phase=TRAIN)
    return net
