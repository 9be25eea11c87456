"""What the residual nets are built of: normalised convolutions, residual blocks, and the end that classifies."""

from typing import Any

from imae.nets.paper import loss_type
from imae.prototxt_like.net_spec import L, NetSpec, Top, named
from imae.prototxt_like.schema import LayerParameter, NetParameter

BATCH_NORM_FRACTION = 0.9


def convolution(
    n: NetSpec, name: str, bottom: Top, num_output: int, *, kernel_size: int = 3, stride: int = 1, relu: bool = True
) -> Top:
    """Add a convolution that keeps the size (over stride), BatchNorm and Scale, and a ReLU by option; return the top.

    Initial weights (by the fan-out) and the decay of the running statistics are those of He et al.'s own code
    (facebook/fb.resnet.torch): an average over tens of iterations, where Caffe's default of 0.999 takes a thousand.
    """
    n[name] = L.Convolution(
        bottom,
        num_output=num_output,
        kernel_size=kernel_size,
        pad=kernel_size // 2,
        stride=stride,
        bias_term=False,
        weight_filler={"type": "msra", "variance_norm": "FAN_OUT"},
    )
    n[f"{name}_bn"] = L.BatchNorm(n[name], in_place=True, moving_average_fraction=BATCH_NORM_FRACTION)
    top: Top = L.Scale(n[f"{name}_bn"], bias_term=True, in_place=True)
    n[f"{name}_scale"] = top
    if relu:
        n[f"{name}_relu"] = top = L.ReLU(top, in_place=True)
    return top


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
    net.layer.insert(
        1, LayerParameter(name="data", type=train.type, top=train.top, include=[{"phase": "TEST"}], **settings)
    )
    return net
