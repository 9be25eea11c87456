"""A user's own data: which of its labels are wrong, and a classifier that does not mind."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imae.audit.classifier import IMAEClassifier
    from imae.audit.image_features import ImageFeatures
    from imae.audit.label_issues import LabelIssues, find_label_issues

__all__ = ["IMAEClassifier", "ImageFeatures", "LabelIssues", "find_label_issues"]

_MODULES = {
    "IMAEClassifier": "imae.audit.classifier",
    "ImageFeatures": "imae.audit.image_features",
    "LabelIssues": "imae.audit.label_issues",
    "find_label_issues": "imae.audit.label_issues",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
