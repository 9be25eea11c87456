"""OpenCV's ONNX reader, to which OpenCV 5 sends those who had its Caffe reader, computes what the net computes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from imae.nets.deploy import deploy
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.nets.resnet_cifar import resnet_cifar

cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")


def with_statistics(net: Net) -> Net:
    """As training might leave them."""
    generator = torch.Generator().manual_seed(0)
    for step in net.steps:
        if step.layer.type == "BatchNorm":
            mean, variance, weight = (blob.data for blob in step.layer.blobs)
            mean.normal_(0, 0.1, generator=generator)
            variance.uniform_(0.5, 1.5, generator=generator)
            weight.fill_(1)
    return net


def compare(net: Net, folder: Path, *, fold: bool = True) -> None:
    """Agree to 1e-4 of the output's standard deviation, at batch 1 and 2."""
    (name,), (output,) = net.inputs, net.outputs
    for batch in (1, 2):
        shape = (batch, *net.shape(name)[1:])
        net.reshape(**{name: shape})
        export_onnx(net, None, folder / "net.onnx", opset=17, dynamic=(), fold_channels=fold)
        read = cv2.dnn.readNetFromONNX(str(folder / "net.onnx"))
        images = 64 * torch.randn(shape, generator=torch.Generator().manual_seed(batch))  # as pixels less their mean
        read.setInput(images.numpy())
        expected = net.forward(**{name: images})[output].numpy()
        assert np.abs(read.forward() - expected).max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("fold", [True, False])
def test_a_small_residual_net(fold: bool, tmp_path: Path) -> None:
    compare(
        with_statistics(Net(deploy(resnet_cifar(20, "cce"), shape=(3, 32, 32)), backward=False)), tmp_path, fold=fold
    )
