"""The Caffe pipeline of the IMAE paper on PyTorch tensors, for training on labels that may be wrong.

Importing this package loads nothing; each name below loads what it needs when it is first used, PyTorch among it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imae import audit
    from imae.audit.classifier import IMAEClassifier
    from imae.audit.image_features import ImageFeatures
    from imae.layers.loss.for_pytorch import (
        CCELoss,
        GCELoss,
        IMAELoss,
        MAELoss,
        cce_loss,
        gce_loss,
        imae_loss,
        mae_loss,
    )
    from imae.nets.net import Net
    from imae.nets.predictor import Predictor
    from imae.prototxt_like.errors import InputError
    from imae.prototxt_like.schema import TEST, TRAIN
    from imae.solvers.solver import Solver

__version__ = "0.1.0"
__all__ = [
    "TEST",
    "TRAIN",
    "CCELoss",
    "GCELoss",
    "IMAEClassifier",
    "IMAELoss",
    "ImageFeatures",
    "InputError",
    "MAELoss",
    "Net",
    "Predictor",
    "Solver",
    "audit",
    "cce_loss",
    "gce_loss",
    "imae_loss",
    "mae_loss",
]

_MODULES = {
    "TEST": "imae.prototxt_like.schema",
    "TRAIN": "imae.prototxt_like.schema",
    "CCELoss": "imae.layers.loss.for_pytorch",
    "GCELoss": "imae.layers.loss.for_pytorch",
    "IMAEClassifier": "imae.audit.classifier",
    "IMAELoss": "imae.layers.loss.for_pytorch",
    "ImageFeatures": "imae.audit.image_features",
    "InputError": "imae.prototxt_like.errors",
    "MAELoss": "imae.layers.loss.for_pytorch",
    "Net": "imae.nets.net",
    "Predictor": "imae.nets.predictor",
    "Solver": "imae.solvers.solver",
    "audit": "imae.audit",
    "cce_loss": "imae.layers.loss.for_pytorch",
    "gce_loss": "imae.layers.loss.for_pytorch",
    "imae_loss": "imae.layers.loss.for_pytorch",
    "mae_loss": "imae.layers.loss.for_pytorch",
}
"""Where each name is defined; `audit` is a package itself."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_MODULES[name])
    value = globals()[name] = module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
