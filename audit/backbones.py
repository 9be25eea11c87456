"""Nets that were trained on other images, whose inner values are the features of these."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from imae.layers.data.transform import Place, Transform
from imae.nets.deploy import data_layer, deploy
from imae.nets.net import Net
from imae.nets.onnx_session import start_session
from imae.nets.precision import set_gpu_arithmetic
from imae.prototxt_like.errors import InputError, counted
from imae.prototxt_like.files import read_bytes
from imae.prototxt_like.schema import TEST, NetParameter
from imae.prototxt_like.text import did_you_mean, read_net
from imae.prototxt_like.weights import open_weights

BATCH = 64
"""Images at a time."""
SIDE = 224
"""Pixels, where a net leaves the size of its images open."""
IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
"""Mean and standard deviation of red, green, blue, of 0 to 1."""
CAFFE_MEAN = np.array([104.0, 117.0, 123.0], np.float32).reshape(3, 1, 1)
"""Of blue, green, red, of 0 to 255."""
BGR_LAYERS = ("Data", "ImageData", "WindowData")
"""Whose images are blue, green, red: a Data layer's as Caffe's own convert_imageset writes them."""
LONGEST_REASON = 200
"""Characters: torch names each weight that is missing."""
Floats = NDArray[np.float32]
Run = Callable[[NDArray[np.uint8]], Floats]


class Backbone:
    """`size` (H, W) of the images that it takes; called with such, B x 3 x H x W, uint8, in BGR, it gives features."""

    def __init__(self, name: str, size: tuple[int, int], run: Run, fingerprint: str) -> None:
        self._name, self.size, self._run, self.fingerprint = name, size, run, fingerprint

    def __call__(self, images: NDArray[np.uint8]) -> Floats:
        """Return features (B x D); raises InputError where it gives none."""
        try:
            features = np.asarray(self._run(images), np.float32)
        except Exception as error:  # whatever the net's library raises
            raise InputError(f"{self._name}: gives no features: {' '.join(str(error).split())}") from error
        if features.ndim < 2 or len(features) != len(images) or not features.size:
            raise InputError(
                f"{self._name}: gives values of shape {features.shape} for {counted(len(images), 'image')}, expected a "
                "row of features for each"
            )
        if features.ndim == 4:
            features = features.mean((2, 3))
        return features.reshape(len(images), -1)


def open_backbone(name: str, device: str = "cpu") -> Backbone:
    """Open `FILE.onnx`, `deploy.prototxt,FILE.caffemodel` or `torchvision:NAME`, on a device of PyTorch's.

    Of an ONNX model the first output is taken, of a Caffe net what its last InnerProduct layer reads, else its output;
    values of images (B x C x H x W) are averaged over H and W. ONNX gets red, green, blue, of ImageNet's mean and
    deviation, torchvision's nets as their weights say; Caffe's nets blue, green, red less 104, 117, 123, or as the data
    layer of their TEST phase has them, whose data need not be there.

    Raises InputError for a file that is missing or no such net, and for torchvision's weights where they are neither in
    its cache nor to be fetched, or are not those that it publishes.
    """
    if name.startswith("torchvision:"):
        return _torchvision(name.partition(":")[2], device)
    if name.endswith(".onnx"):
        return _onnx(Path(name), device)
    model, comma, weights = name.partition(",")
    if comma:
        return _caffe(Path(model), Path(weights), device)
    raise InputError(f"--backbone takes FILE.onnx, deploy.prototxt,FILE.caffemodel or torchvision:NAME, not {name!r}")


def _normalised(images: NDArray[np.uint8], moments: Floats = IMAGENET) -> Floats:
    mean, deviation = moments[:, :, None, None]
    scaled: Floats = (images[:, ::-1].astype(np.float32) / 255 - mean) / deviation
    return scaled


def _digest(*paths: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        digest.update(read_bytes(path))
    return digest.hexdigest()


def _onnx(path: Path, device: str) -> Backbone:
    digest = _digest(path)
    session = start_session(path, cpu=device == "cpu")
    inputs = session.get_inputs()
    shape = inputs[0].shape
    if len(inputs) != 1 or len(shape) != 4 or (shape[1] not in (3, None) and not isinstance(shape[1], str)):
        raise InputError(
            f"{path}: takes {[value.shape for value in inputs]}, expected one batch of images, N x 3 x H x W"
        )
    height, width = (side if isinstance(side, int) and side > 0 else SIDE for side in shape[2:])
    fixed = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None

    def run(images: NDArray[np.uint8]) -> Floats:
        values = _normalised(images)
        size = fixed or len(values)
        parts = []
        for start in range(0, len(values), size):
            part = values[start : start + size]
            padded = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
            parts.append(session.run([session.get_outputs()[0].name], {inputs[0].name: padded})[0][: len(part)])
        whole: Floats = np.concatenate(parts)
        return whole

    return Backbone(str(path), (height, width), run, digest)


def _predicting(model: Path) -> tuple[NetParameter, Floats, float]:
    """The net that predicts, what is taken from its images (3 x H x W, or 3 x 1 x 1), and what they are times then."""
    param = read_net(model)
    layer = data_layer(param, folder=model.parent)
    if layer is None:
        return param, CAFFE_MEAN, 1.0
    if layer.param.type not in BGR_LAYERS:
        raise InputError(
            f"{model}: its images are of a {layer.param.type} layer, expected one of {', '.join(BGR_LAYERS)}, or an "
            "Input, as a deploy prototxt has"
        )
    transform = Transform(layer, random_crop=False, mirror=False)
    mean = torch.zeros(3, 1, 1) if transform.mean is None else transform.mean
    height, width = [transform.crop] * 2 if transform.crop else mean.shape[1:]
    if height == 1 or len(mean) not in (1, 3):
        raise layer.error(f"{model}: no crop_size and no mean_file of colour images says how large images are")
    rows, columns = Place(transform.crop, None, None, None).window(*mean.shape[1:])
    deployed = deploy(param, shape=(3, height, width), folder=model.parent)
    return deployed, mean[:, rows, columns].numpy(), transform.scale


def _caffe(model: Path, weights: Path, device: str) -> Backbone:
    stored = open_weights(weights)
    param, mean, scale = _predicting(model)
    net = Net(param, TEST, folder=model.parent, backward=False, device=device)
    if kept := net.copy_weights(stored).kept:
        raise InputError(f"{weights}: lacks weights of the layers {', '.join(kept)} of {model}")
    if len(net.inputs) != 1 or len(shape := net.blobs[net.inputs[0]].shape) != 4 or shape[1] != 3:
        raise InputError(f"{model}: takes the inputs {', '.join(net.inputs)}, expected one, of images N x 3 x H x W")
    classifiers = [layer for layer in net.param.layer if layer.type == "InnerProduct"]
    blob = classifiers[-1].bottom[0] if classifiers else net.outputs[0]
    last = next(layer.name for layer in reversed(net.param.layer) if blob in layer.top)
    (name,) = net.inputs

    def run(images: NDArray[np.uint8]) -> Floats:
        inputs: dict[str, Any] = {name: (images - mean) * np.float32(scale)}
        features: Floats = net.forward(end=last, **inputs)[blob].float().cpu().numpy()
        return features

    return Backbone(f"{model},{weights}", (int(shape[2]), int(shape[3])), run, _digest(model, weights))


def _torchvision(name: str, device: str) -> Backbone:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise InputError(f"torchvision has no model {name!r}{did_you_mean(name, known)}")
    weights: Any = torchvision.models.get_model_weights(name).DEFAULT
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    cached = path.exists()
    digest = checked_digest(path) if cached else ""
    try:
        model: Any = torchvision.models.get_model(name, weights=weights).eval()
    except Exception as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        if cached:
            raise InputError(f"{path}: does not hold the weights of torchvision's {name}: {reason}") from error
        raise InputError(
            f"the weights of torchvision's {name} are not in {path.parent} and cannot be fetched: {reason}"
        ) from error
    _cut(model)
    model.to(device, memory_format=torch.channels_last)
    if device != "cpu":
        set_gpu_arithmetic(tf32=False)  # for the CPU's features, nearly
    expected = weights.transforms()
    moments = np.array([expected.mean, expected.std], np.float32)

    def run(images: NDArray[np.uint8]) -> Floats:
        with torch.inference_mode():
            values = torch.from_numpy(_normalised(images, moments)).to(device, memory_format=torch.channels_last)
            features: Floats = model(values).cpu().numpy()
        return features

    digest = digest or checked_digest(path)
    return Backbone(f"torchvision:{name}", (expected.crop_size[0],) * 2, run, f"{name} {digest}")


def checked_digest(path: Path) -> str:
    """Return the SHA-256 of a file of weights; raises InputError unless it begins as NAME-DIGEST.pth says.

    torchvision compares what it fetches, but takes what lies in its cache as it is, and unpickles it.
    """
    digest = hashlib.sha256(read_bytes(path)).hexdigest()
    if not digest.startswith(expected := path.stem.rpartition("-")[2]):
        raise InputError(
            f"{path}: has the SHA-256 {digest[: len(expected)]}..., not that in its name, of the weights that "
            "torchvision publishes: remove it, and it is fetched again"
        )
    return digest


def _cut(model: torch.nn.Module) -> None:
    """Leave out the layer that tells classes: the last one with weights."""
    place = [name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)][-1]
    model.set_submodule(place, torch.nn.Identity())
