"""GoogLeNet with batch normalisation, the paper's net for MARS: the Inception of Ioffe and Szegedy 2015, Figure 5."""

from functools import partial
from typing import Any, NamedTuple

from imae.nets.paper import loss_type
from imae.nets.residual import convolution, with_test_data
from imae.prototxt_like.net_spec import L, NetSpec, Top, named
from imae.prototxt_like.schema import NetParameter

BATCH, RESIZED, CROP = 180, 256, 224  # frames a batch, pixels they are resized to, pixels of a crop: section 5.2
PERSONS = 625  # in the training part of MARS
MEAN = (104, 117, 123)  # blue, green and red of ImageNet's mean, which ImageNet's weights expect to be removed
FEATURES = "pool5/7x7_s1"  # the blob of the 1,024 features that describe a frame
_XAVIER = {"type": "xavier"}
_convolution = partial(convolution, ends=("/bn", "/bn/sc", "/bn/sc/relu"), kernel_size=1, weight_filler=_XAVIER)


class Inception(NamedTuple):
    """The widths of a module's convolutions; None where a module with stride 2 has none."""

    name: str
    one: int | None
    three: tuple[int, int]
    double: tuple[int, int]
    pool: str
    projection: int | None


MODULES = (
    Inception("3a", 64, (64, 64), (64, 96), "AVE", 32),
    Inception("3b", 64, (64, 96), (64, 96), "AVE", 64),
    Inception("3c", None, (128, 160), (64, 96), "MAX", None),
    Inception("4a", 224, (64, 96), (96, 128), "AVE", 128),
    Inception("4b", 192, (96, 128), (96, 128), "AVE", 128),
    Inception("4c", 160, (128, 160), (128, 160), "AVE", 96),
    Inception("4d", 96, (128, 192), (160, 192), "AVE", 96),
    Inception("4e", None, (128, 192), (192, 256), "MAX", None),
    Inception("5a", 352, (192, 320), (160, 224), "AVE", 128),
    Inception("5b", 352, (192, 320), (192, 224), "MAX", 128),
)
"""Figure 5; for 4c and 4d it states 576 channels, where its projections to 128 would make 608: to 96 they make 576."""


def googlenet_bn(loss: str, *, source: str = "MARS", persons: int = PERSONS, **loss_settings: float) -> NetParameter:
    """Return the net with its data layers, as trained in section 5.2 of the paper.

    The paper says "GoogleNet with batch normalisation (Ioffe & Szegedy, 2015)", which is taken to be their net, with
    one classifier, at its end. In phase TEST there are no labels, and no loss. `loss` and `loss_settings` are as for
    `resnet_cifar`, `source` is the folder of MARS, `persons` the number of its training part's.

    All layers with blobs but the last, `score`, have the names, order and shapes of those in the `deploy.prototxt` of
    https://github.com/lim0606/caffe-googlenet-bn (commit d19caf5), to start from ImageNet weights of that form.
    Raises InputError for another loss.
    """
    data: dict[str, Any] = {"source": source, "batch_size": BATCH, "new_height": RESIZED, "new_width": RESIZED}
    transform: dict[str, Any] = {"crop_size": CROP, "mean_value": MEAN}
    train_only = {"phase": "TRAIN"}
    n = NetSpec()
    n.data, n.label = frames, label = L.MarsData(
        ntop=2, include=train_only, transform_param={**transform, "mirror": True}, **data
    )
    top = _convolution(n, "conv1/7x7_s2", frames, 64, kernel_size=7, stride=2)
    n["pool1/3x3_s2"] = top = L.Pooling(top, pool="MAX", kernel_size=3, stride=2)
    top = _convolution(n, "conv2/3x3_reduce", top, 64)
    top = _convolution(n, "conv2/3x3", top, 192, kernel_size=3)
    n["pool2/3x3_s2"] = top = L.Pooling(top, pool="MAX", kernel_size=3, stride=2)
    for module in MODULES:
        top = _inception(n, module, top)
    n[FEATURES] = L.Pooling(top, pool="AVE", global_pooling=True)
    n.score = L.InnerProduct(n[FEATURES], num_output=persons, weight_filler=_XAVIER)
    n.loss = getattr(L, loss_type(loss))(n.score, label, include=train_only, **loss_settings)
    n.accuracy = L.Accuracy(n.score, label, include=train_only)
    return with_test_data(n.to_proto("GoogLeNet-BN"), top=["data"], transform_param=transform, mars_data_param=data)


def _inception(n: NetSpec, module: Inception, bottom: Top) -> Top:
    """Add a module's branches side by side; where it has no 1x1 branch, all of them halve the size."""
    name, stride = f"inception_{module.name}", 1 if module.one else 2
    branches = [_convolution(n, f"{name}/1x1", bottom, module.one)] if module.one else []
    x = _convolution(n, f"{name}/3x3_reduce", bottom, module.three[0])
    branches.append(_convolution(n, f"{name}/3x3", x, module.three[1], kernel_size=3, stride=stride))
    x = _convolution(n, f"{name}/double3x3_reduce", bottom, module.double[0])
    x = _convolution(n, f"{name}/double3x3a", x, module.double[1], kernel_size=3)
    branches.append(_convolution(n, f"{name}/double3x3b", x, module.double[1], kernel_size=3, stride=stride))
    n[f"{name}/pool"] = x = L.Pooling(bottom, pool=module.pool, kernel_size=3, stride=stride, pad=int(stride == 1))
    if module.projection:
        x = _convolution(n, f"{name}/pool_proj", x, module.projection)
    return named(n, f"{name}/output", L.Concat(*branches, x))
