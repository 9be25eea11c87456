"""What the residual nets are built of: normalised convolutions, residual blocks, and the end that classifies."""

from typing import Any

from imae.nets.paper import loss_type
from imae.prototxt_like.net_spec import L, NetSpec, Top, named
from imae.prototxt_like.schema import LayerParameter, NetParameter

BATCH_NORM_FRACTION = 0.9
Names = tuple[str, str, str]
NAMES: Names = ("_bn", "_scale", "_relu")
_FAN_OUT = {"type": "msra", "variance_norm": "FAN_OUT"}
_SETTINGS: dict[str, Any] = {"kernel_size": 3, "stride": 1, "weight_filler": _FAN_OUT}


def convolution(
    n: NetSpec, name: str, bottom: Top, num_output: int, *, relu: bool = True, ends: Names = NAMES, **settings: Any
) -> Top:
    """Add a convolution that keeps the size (over stride), BatchNorm and Scale, and a ReLU by option; return the top.

    `ends` are those of the names of the layers behind the convolution, `settings` further ones of the convolution.
    Initial weights (by the fan-out) and the decay of the running statistics are those of He et al.'s own code
    (facebook/fb.resnet.torch): an average over tens of iterations, where Caffe's default of 0.999 takes a thousand.
    """
    settings = _SETTINGS | settings
    pad = settings["kernel_size"] // 2
    n[name] = L.Convolution(bottom, num_output=num_output, pad=pad, bias_term=False, **settings)
    bn, scale, rectified = (name + end for end in ends)
    n[bn] = L.BatchNorm(n[name], in_place=True, moving_average_fraction=BATCH_NORM_FRACTION)
    n[scale] = top = L.Scale(n[bn], bias_term=True, in_place=True)
    return named(n, rectified, L.ReLU(top, in_place=True)) if relu else top


def residual_block(
    n: NetSpec, name: str, bottom: Top, num_output: int, *, stride: int = 1, projection: bool = False
) -> Top:
    """Add two convolutions and their shortcut, and return the ReLU of the sum.

    The shortcut is the identity, for which the width must stay; with a stride it is a `Shortcut` layer, or a 1x1
    convolution (`projection`).
    """
    x = convolution(n, f"{name}_conv1", bottom, num_output, stride=stride)
    x = convolution(n, f"{name}_conv2", x, num_output, relu=False)
    shortcut = bottom
    if stride > 1 and projection:
        shortcut = convolution(n, f"{name}_shortcut", bottom, num_output, kernel_size=1, stride=stride, relu=False)
    elif stride > 1:
        n[f"{name}_shortcut"] = shortcut = L.Shortcut(bottom, num_output=num_output, stride=stride)
    n[name] = L.Eltwise(shortcut, x)
    return named(n, f"{name}_relu", L.ReLU(n[name], in_place=True))


def classify(n: NetSpec, bottom: Top, label: Top, classes: int, loss: str, **loss_settings: float) -> None:
    """Add global average pooling, the inner product `score`, the loss by its name in `LOSSES`, and Accuracy (TEST)."""
    n.pool = L.Pooling(bottom, pool="AVE", global_pooling=True)
    n.score = L.InnerProduct(n.pool, num_output=classes, weight_filler={"type": "msra"})
    n.loss = getattr(L, loss_type(loss))(n.score, label, **loss_settings)
    n.accuracy = L.Accuracy(n.score, label, include={"phase": "TEST"})


def with_test_data(net: NetParameter, **settings: Any) -> NetParameter:
    """Add to `net`, after the data layer of phase TRAIN, one of phase TEST with these settings; return `net`."""
    train = net.layer[0]
    test = {"name": "data", "type": train.type, "top": train.top, "include": [{"phase": "TEST"}], **settings}
    net.layer.insert(1, LayerParameter(**test))
    return net
