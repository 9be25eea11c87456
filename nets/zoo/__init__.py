"""Well-known nets, with the parameters and, where weights were published for Caffe, the layers' names of these.

    from imae.nets.zoo import vgg16
    net = imae.Net(vgg16(classes=20, batch=8), imae.TRAIN)

Each builder takes `classes` and `batch` and returns a NetParameter that begins with Inputs; `build` puts data layers in
their place. docs/zoo.md lists them all.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, TRAIN, LayerParameter, NetParameter
from imae.prototxt_like.text import did_you_mean

FILES = {
    "alexnet": "alexnet",
    "caffenet": "alexnet",
    "vgg16": "vgg",
    "googlenet": "googlenet",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "inception_resnet_v2": "inception_resnet_v2",
    "resnet50": "resnet",
    "resnet101": "resnet",
    "densenet121": "densenet",
    "squeezenet": "squeezenet",
    "mobilenet": "mobilenet",
    "fcn8s": "fcn",
    "lrcn": "captioning",
    "siamese": "siamese",
    "autoencoder": "autoencoder",
}
"""Each net, and the file of its builder."""
MEAN = (104, 117, 123)
"""Blue, green and red of ImageNet's mean, which is removed from photographs."""

__all__ = [*FILES, "build"]  # noqa: PLE0604


def __getattr__(name: str) -> Callable[..., NetParameter]:
    if name not in FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    builder: Callable[..., NetParameter] = getattr(import_module(f"{__name__}.{FILES[name]}"), name)
    return builder


def build(name: str, *, source: str = "", **settings: int) -> NetParameter:
    """Return the net called `name`, with the `settings` of its builder.

    With `source`, a folder, its inputs are read from there, each phase from its own. Images with a class each, and images
    alone: from the LMDBs `train_lmdb` and `val_lmdb`, with ImageNet's mean removed, in training cropped and mirrored at
    random; those of digits are scaled to 0 to 1. Other inputs: from the HDF5 files that `train.txt` and `val.txt` list.
    Raises InputError for another name.
    """
    if name not in FILES:
        raise InputError(f'there is no net "{name}"; known are {", ".join(FILES)}{did_you_mean(name, FILES)}')
    net = __getattr__(name)(**settings)
    if source:
        given = net.layer[0]
        data = [_data(given, source, phase) for phase in (TRAIN, TEST)]
        layers = [*data, *net.layer[1:]]
        del net.layer[:]
        net.layer.extend(layers)
    return net


def _data(given: LayerParameter, source: str, phase: int) -> LayerParameter:
    """The layer that reads, in this phase, what the Input `given` stands for."""
    (batch, *image), *others = ([*shape.dim] for shape in given.input_param.shape)
    layer = LayerParameter(name="data", type="HDF5Data", top=given.top, include=[{"phase": phase}])
    folder = f"{source}/{'train' if phase == TRAIN else 'val'}"
    if others not in ([], [[batch]]):
        layer.hdf5_data_param.source, layer.hdf5_data_param.batch_size = f"{folder}.txt", batch
        return layer
    layer.type = "Data"
    data: dict[str, Any] = {"source": f"{folder}_lmdb", "batch_size": batch, "backend": "LMDB"}
    layer.data_param.MergeFrom(type(layer.data_param)(**data))
    if image[0] == 3:
        layer.transform_param.crop_size = image[-1]
        layer.transform_param.mean_value.extend(MEAN)
        layer.transform_param.mirror = phase == TRAIN
    else:
        layer.transform_param.scale = 1 / 256
    return layer
