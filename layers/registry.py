"""The registry: from a prototxt `type` to its layer, whose file is found by that name when it is first asked for."""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from imae.layers.detection.py_faster_rcnn import as_ours
from imae.layers.layer import Context, Layer
from imae.layers.python_layer import is_found
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.known_names import FORK_LAYERS, OTHER_NAMES
from imae.prototxt_like.schema import LayerParameter
from imae.prototxt_like.text import did_you_mean

FAMILIES = ("activation", "common", "data", "detection", "loss", "normalization", "recurrent", "utility", "vision")
"""The folders of layers, which group them as Caffe's catalogue does."""
BESIDE = {
    "SoftmaxWithLoss": "MultinomialLogisticLoss",
    "SoftmaxWithMAELoss": "MAELoss",
    "SoftmaxWithIMAELoss": "IMAELoss",
    "SoftmaxWithGCELoss": "GCELoss",
    "SoftmaxWithLossOHEM": "MultinomialLogisticLoss",
    "SmoothL1LossOHEM": "SmoothL1Loss",
    "SigmoidCrossEntropyBalanceLoss": "SigmoidCrossEntropyLoss",
    "ConvolutionDepthwise": "DepthwiseConvolution",
}
"""Types that stand in the file of another, whose mathematics they share."""
ANONYMOUS = "(automatic)"  # what Caffe calls the top of a loss that the prototxt gives none

L = TypeVar("L", bound=Layer)


class Registry(Mapping[str, type[Layer]]):
    """All layer types: those of this package, from files of their names, and those that `register` added."""

    def __init__(self) -> None:
        folder = Path(__file__).parent
        self._files = {
            path.stem.replace("_", ""): f"imae.layers.{family}.{path.stem}"
            for family in FAMILIES
            for path in sorted((folder / family).glob("[a-z]*.py"))
        }
        self._layers: dict[str, type[Layer]] = {}

    def add(self, cls: type[Layer]) -> None:
        """Add the layer of type `cls.type`; raises InputError if that is taken."""
        taken = self.get(cls.type)
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InputError(f'the layer type "{cls.type}" is taken by {taken.__module__}.{taken.__qualname__}')
        self._layers[cls.type] = cls

    def __contains__(self, type: object) -> bool:
        if type not in self._layers:
            file = self._files.get(BESIDE.get(str(type), str(type)).lower())
            if file:
                self._load(file)
        return type in self._layers

    def __getitem__(self, type: str) -> type[Layer]:
        if type not in self:
            raise KeyError(type)
        return self._layers[type]

    def __iter__(self) -> Iterator[str]:
        """All types, whose files are loaded for that."""
        for file in self._files.values():
            self._load(file)
        return iter(sorted(self._layers))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __delitem__(self, type: str) -> None:
        """Forget a type that `register` added."""
        del self._layers[type]

    def _load(self, file: str) -> None:
        """Add the layers of a file of this package: its classes that say what type they are."""
        for cls in vars(importlib.import_module(file)).values():
            if isinstance(cls, type) and issubclass(cls, Layer) and cls.__module__ == file and "type" in vars(cls):
                self._layers[cls.type] = cls


registry = Registry()


def register(cls: type[L]) -> type[L]:
    """Class decorator, for layers elsewhere: make `cls` that of its `type`; raises InputError if that is taken."""
    registry.add(cls)
    return cls


def create_layer(param: LayerParameter, context: Context | None = None) -> Layer:
    """Return the layer that `param` describes; raises InputError for an unknown type or a wrong number of blobs.

    A loss without a top gets an anonymous one, as by Caffe's AutoTopBlobs: in the layer's own `param` alone. Python
    layers of py-faster-rcnn are its layers that are here, unless their code may run and is found.
    """
    if param.type == "Python":
        context = context or Context()
        phase = param.phase if param.HasField("phase") else context.phase
        ours = as_ours(param, phase)
        if ours and not (context.allow_python and is_found(param.python_param.module, context.folders)):
            param = ours
    if param.type not in registry:
        raise InputError(f'layer "{param.name}": {_unknown(param.type)}')
    if registry[param.type].is_loss and not param.top:
        given, param = param, LayerParameter()
        param.CopyFrom(given)
        param.top.append(ANONYMOUS)
    layer = registry[param.type](param, context)
    layer.check_counts()
    return layer


def _unknown(type: str) -> str:
    if type in FORK_LAYERS:
        return f"the layer type \"{type}\" is of {FORK_LAYERS[type]}'s Caffe, not of BVLC's"
    hint = did_you_mean(type, registry, OTHER_NAMES) or f"; known are {', '.join(registry)}"
    return f'unknown layer type "{type}"{hint}'
