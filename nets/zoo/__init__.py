"""Well-known nets, with the parameters and, where weights were published for Caffe, the layers' names of these.

    from imae.nets.zoo import vgg16
    net = imae.Net(vgg16(classes=20, batch=8), imae.TRAIN)

Each builder takes `classes` and `batch` and returns a NetParameter that begins with an Input layer; `build` puts data
layers in its place. docs/zoo.md has the table.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, TRAIN, LayerParameter, NetParameter
from imae.prototxt_like.text import did_you_mean


class Published(NamedTuple):
    """A net as it was published."""

    file: str
    """Where its builder is."""
    parameters: int
    """What it learns: all blobs in phase TEST without the running statistics of BatchNorm."""
    paper: str
    named_as: str
    """Whose layers' names it has: a repository on GitHub."""


_INCEPTION = "Szegedy et al. 2016 (Inception-v4)"
NETS = {
    "alexnet": Published("alexnet", 60_965_224, "Krizhevsky et al. 2012", "BVLC/caffe"),
    "caffenet": Published("alexnet", 60_965_224, "Krizhevsky et al. 2012", "BVLC/caffe"),
    "vgg16": Published("vgg", 138_357_544, "Simonyan and Zisserman 2014", "gist ksimonyan/211839e770f7b538e2d8"),
    "googlenet": Published("googlenet", 6_998_552, "Szegedy et al. 2015", "BVLC/caffe"),
    "inception_v3": Published("inception_v3", 23_834_568, "Szegedy et al. 2016 (Rethinking)", "soeaver/caffe-model"),
    "inception_v4": Published("inception_v4", 42_679_816, _INCEPTION, "soeaver/caffe-model"),
    "inception_resnet_v2": Published("inception_resnet_v2", 55_843_464, _INCEPTION, "soeaver/caffe-model"),
    "resnet50": Published("resnet", 25_557_032, "He et al. 2016", "KaimingHe/deep-residual-networks"),
    "resnet101": Published("resnet", 44_549_160, "He et al. 2016", "KaimingHe/deep-residual-networks"),
    "densenet121": Published("densenet", 7_978_856, "Huang et al. 2017", "shicai/DenseNet-Caffe"),
    "squeezenet": Published("squeezenet", 1_235_496, "Iandola et al. 2016, version 1.1", "forresti/SqueezeNet"),
    "mobilenet": Published("mobilenet", 4_231_976, "Howard et al. 2017", "shicai/MobileNet-Caffe"),
    "fcn8s": Published("fcn", 134_368_799, "Long et al. 2015", "shelhamer/fcn.berkeleyvision.org"),
    "deeplab": Published("deeplab", 20_505_429, "Chen et al. 2015", "DeepLab-LargeFOV"),
    "ssd300": Published("ssd", 26_285_486, "Liu et al. 2016", "weiliu89/caffe, branch ssd"),
    "lrcn": Published("captioning", 98_584_025, "Donahue et al. 2015", "LisaAnne/lisa-caffe-public"),
    "siamese": Published("siamese", 431_102, "Hadsell et al. 2006", "BVLC/caffe"),
    "autoencoder": Published("autoencoder", 2_837_314, "Hinton and Salakhutdinov 2006", "BVLC/caffe"),
}
MEAN = (104, 117, 123)
"""Blue, green and red of ImageNet's mean, which is removed from photographs."""


def __getattr__(name: str) -> Callable[..., NetParameter]:
    if name not in NETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    builder: Callable[..., NetParameter] = getattr(import_module(f"{__name__}.{NETS[name].file}"), name)
    return builder


def __dir__() -> list[str]:
    return sorted([*globals(), *NETS])


def build(name: str, *, source: str = "", **settings: int) -> NetParameter:
    """Return the net called `name`, with the `settings` of its builder.

    With `source`, a folder, its inputs are read from there, each phase from its own. Images with a class each, and
    images alone: from the LMDBs `train_lmdb` and `val_lmdb`, photographs without ImageNet's mean, cropped, in training
    mirrored at random, digits scaled to 0 to 1. Other inputs: from the HDF5 files that `train.txt` and `val.txt` list.
    Raises InputError for another name.
    """
    if name not in NETS:
        raise InputError(f'there is no net "{name}"; known are {", ".join(NETS)}{did_you_mean(name, NETS)}')
    net = __getattr__(name)(**settings)
    if source:
        data = [_data(net.layer[0], source, phase) for phase in (TRAIN, TEST)]
        layers = [*data, *net.layer[1:]]
        del net.layer[:]
        net.layer.extend(layers)
    return net


def _data(given: LayerParameter, source: str, phase: int) -> LayerParameter:
    """The layer that reads, in this phase, what the Input layer `given` stands for."""
    (batch, *image), *others = ([*shape.dim] for shape in given.input_param.shape)
    folder = f"{source}/{'train' if phase == TRAIN else 'val'}"
    layer = LayerParameter(name="data", top=given.top, include=[{"phase": phase}])
    if others not in ([], [[batch]]):
        layer.type = "HDF5Data"
        layer.hdf5_data_param.source, layer.hdf5_data_param.batch_size = f"{folder}.txt", batch
        return layer
    layer.type = "Data"
    layer.data_param.source, layer.data_param.batch_size = f"{folder}_lmdb", batch
    layer.data_param.backend = layer.data_param.LMDB
    photograph: dict[str, Any] = {"crop_size": image[-1], "mean_value": MEAN, "mirror": phase == TRAIN}
    layer.transform_param.MergeFrom(type(layer.transform_param)(**photograph if image[0] == 3 else {"scale": 1 / 256}))
    return layer
