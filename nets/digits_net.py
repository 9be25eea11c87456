"""A small residual net for the 8 x 8 digits, on which the losses can be compared in seconds."""

from typing import Any

from imae.nets.residual import classify, convolution, residual_block, with_test_data
from imae.prototxt_like.net_spec import L, NetSpec
from imae.prototxt_like.schema import NetParameter

WIDTHS = (16, 32)
TRAIN_BATCH, TEST_BATCH = 128, 100
SIDE, PAD = 8, 1  # pixels: of an image, and of the padding that crops are from, an eighth as the paper's 4 of 32


def digits_net(
    loss: str, *, noise_rate: float = 0.0, noise_seed: int = 0, crops: bool = False, **loss_settings: float
) -> NetParameter:
    """Return a 3x3 convolution and two residual blocks, of widths 16 and 32, with their data layers.

    With `crops` the training images are random crops of the padded ones; they are never mirrored, which makes other
    digits. Other arguments, and what it raises, as for `resnet_cifar`.
    """
    train: dict[str, Any] = {"batch_size": TRAIN_BATCH}
    if crops:
        train |= {"pad": PAD, "transform_param": {"crop_size": SIDE}}
    if noise_rate:
        train |= {"noise_rate": noise_rate, "noise_seed": noise_seed}
    n = NetSpec()
    n.data, n.label = data, label = L.DigitsData(ntop=2, include={"phase": "TRAIN"}, **train)
    top = convolution(n, "conv1", data, WIDTHS[0])
    for i, width in enumerate(WIDTHS, 1):
        top = residual_block(n, f"block{i}", top, width, stride=i)
    classify(n, top, label, 10, loss, **loss_settings)
    return with_test_data(n.to_proto("digits"), digits_data_param={"batch_size": TEST_BATCH})
