"""Every layer: forward, backward, shapes and ONNX form; importing this package registers them all."""

from imae.layers.waiting import wait_passively

wait_passively()  # before anything below loads torch

from imae.layers import (  # noqa: E402, F401
    accuracy,
    batch_norm,
    concat,
    convolution,
    data,
    dropout,
    eltwise,
    inner_product,
    input,
    loss,
    pooling,
    relu,
    scale,
    shortcut,
    softmax,
)
