"""Every layer: forward, backward, shapes and ONNX form; importing this package registers them all."""

from imae.layers import (  # noqa: F401
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
