"""The paper's nets: the ResNets for CIFAR-10 of He et al. 2016, section 4.2."""

from typing import Any

from imae.nets.residual import classify, convolution, residual_block, with_test_data
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.net_spec import L, NetSpec
from imae.prototxt_like.schema import NetParameter

WIDTHS = (16, 32, 64)
TRAIN_BATCH, TEST_BATCH = 128, 100


def resnet_cifar(
    depth: int,
    loss: str,
    *,
    noise_rate: float = 0.0,
    noise_seed: int = 0,
    source: str = "data",
    projection: bool = False,
    **loss_settings: float,
) -> NetParameter:
    """Return the ResNet of `depth` 6n + 2 (20, 32, 44, 56, 110) with its data layers, as trained in the paper.

    A 3x3 convolution, then three stages of n blocks of two, of widths 16, 32 and 64, the later stages beginning with
    stride 2; where the width changes, the shortcut is the parameter-free `Shortcut`, or a `projection`.
    `loss` is cce, mae, gce or imae, `loss_settings` are its layer's (T; q, k, start_iter). Each training label is
    replaced by a class at random with the probability `noise_rate`; `source` is the folder with CIFAR-10. Raises
    InputError for another depth or loss.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise InputError(f"the depth of a ResNet for CIFAR-10 must be 6n + 2 (20, 32, 44, 56, 110), not {depth}")
    train: dict[str, Any] = {"source": source, "batch_size": TRAIN_BATCH, "pad": 4}
    if noise_rate:
        train |= {"noise_rate": noise_rate, "noise_seed": noise_seed}
    n = NetSpec()
    n.data, n.label = data, label = L.Cifar10Data(
        ntop=2, include={"phase": "TRAIN"}, transform_param={"crop_size": 32, "mirror": True}, **train
    )
    top = convolution(n, "conv1", data, WIDTHS[0])
    for stage, width in enumerate(WIDTHS, 1):
        for block in range(1, blocks + 1):
            name, stride = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
            top = residual_block(n, name, top, width, stride=stride, projection=projection)
    classify(n, top, label, 10, loss, **loss_settings)
    net = n.to_proto(f"ResNet-{depth}")
    return with_test_data(net, cifar10_data_param={"source": source, "batch_size": TEST_BATCH})
