"""Where there is a GPU: the features that an audit makes of images there are those of the CPU, nearly."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import imae
from imae.audit.backbones import open_backbone
from imae.audit.image_arrays import ImageArrays
from imae.audit.pixel_net import PixelNet
from imae.audit.samples import read_samples
from imae.nets.deploy import deploy
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.nets.resnet_cifar import resnet_cifar
from imae.prototxt_like.schema import TEST
from imae.prototxt_like.text import write_text

if not torch.cuda.is_available():
    pytest.skip("there is no GPU", allow_module_level=True)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A residual net as Caffe's files, as ONNX, and torchvision's as in its cache."""
    folder = tmp_path_factory.mktemp("nets")
    param = deploy(resnet_cifar(20, "cce"), shape=(3, 32, 32))
    net = Net(param, TEST, backward=False)
    write_text(param, folder / "net.prototxt")
    net.write_weights(folder / "net.caffemodel")
    export_onnx(net, None, folder / "net.onnx")
    return folder


@pytest.mark.parametrize("kind", ["Caffe", "ONNX", "torchvision"])
def test_a_backbone_gives_the_features_of_the_cpu(kind: str, nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = {"Caffe": f"{nets}/net.prototxt,{nets}/net.caffemodel", "ONNX": f"{nets}/net.onnx"}.get(kind)
    if name is None:
        name = "torchvision:resnet18"
        torch.manual_seed(0)
        torch.save(torchvision.models.resnet18().state_dict(), nets / "weights")
        file = nets / "hub" / "checkpoints" / f"r-{hashlib.sha256((nets / 'weights').read_bytes()).hexdigest()[:8]}.pth"
        file.parent.mkdir(parents=True)
        (nets / "weights").rename(file)
        monkeypatch.setenv("TORCH_HOME", str(nets))
        monkeypatch.setitem(
            torchvision.models.ResNet18_Weights.DEFAULT.value.__dict__, "url", f"https://none/{file.name}"
        )
    here, there = open_backbone(name), open_backbone(name, "cuda")
    images = np.random.default_rng(0).integers(0, 256, (9, 3, *here.size), np.uint8)
    expected = here(images)
    precise = 2e-3 if kind == "ONNX" else 1e-4  # ONNX Runtime may round factors to TF32
    np.testing.assert_allclose(there(images), expected, rtol=precise, atol=precise * np.abs(expected).max())


def test_a_net_on_the_pixels_learns_there_goes_on_and_is_written(tmp_path: Path) -> None:
    samples = read_samples("digits")
    assert isinstance(samples.images, np.ndarray)

    def net() -> PixelNet:
        return PixelNet(tmp_path, samples, ImageArrays(samples, color=False), loss="IMAE", parameter=8.0, device="cuda")

    stopped = net()

    def stop(done: int, total: int) -> None:
        if done >= 300:
            raise KeyboardInterrupt

    said: list[str] = []
    assert not stopped.train(1.0, resume=False, on_progress=stop, show=said.append)
    assert said[0].startswith("stopped after 3")
    ended = net()
    first: list[int] = []
    assert ended.train(0.2, resume=True, on_progress=lambda done, total: first.append(done), show=said.append)
    assert first[0] > 300
    ended.write()
    kept, features = ended.features()
    assert len(kept) == len(features) == len(samples)
    model = imae.Net(tmp_path / "net.prototxt", TEST)
    model.copy_weights(tmp_path / "net.caffemodel")
    chosen = model.forward(data=torch.from_numpy(samples.images).float())["prob"].argmax(1)
    assert (chosen.numpy() == samples.label).mean() > 0.95
