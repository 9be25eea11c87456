"""Images to features by a backbone, after scikit-learn's conventions."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from imae.audit.backbones import BATCH, Backbone, open_backbone
from imae.audit.data_set_images import DataSetImages
from imae.audit.image_arrays import shrunk


class ImageFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A transformer of N images, an array or a sequence of what `as_image` takes, to features (N x D).

    Parameters: `backbone`, as `open_backbone` takes it, and the `device` of PyTorch's that it runs on; without one, the
    values of X (N x ...) are the features.

    Nothing is learnt: `fit` opens the backbone, which is opened by its name again where the fitted transformer is read
    from a pickle. Raises InputError for a backbone that is none, and for an image, which it names.
    """

    def __init__(self, backbone: str = "", device: str = "cpu") -> None:
        self.backbone, self.device = backbone, device

    def fit(self, X: Any, y: object = None) -> "ImageFeatures":
        """Find out how many features an image has."""
        if self.backbone:
            self._n_features_out = self._features(X, range(1)).shape[1]
        else:
            self._n_features_out = int(np.prod(validate_data(self, X, allow_nd=True).shape[1:]))
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return features (N x D)."""
        check_is_fitted(self, "_n_features_out")
        if not self.backbone:
            values = validate_data(self, X, allow_nd=True, reset=False)
            return np.reshape(values, (len(values), -1))
        features = np.empty((len(X), self._n_features_out), np.float32)
        for start in range(0, len(X), BATCH):
            chosen = range(start, min(start + BATCH, len(X)))
            features[start : chosen.stop] = self._features(X, chosen)
        return features

    def _features(self, X: Sequence[Any], chosen: Sequence[int]) -> NDArray[np.float32]:
        backbone, images = _opened(self.backbone, self.device), DataSetImages(lambda i: X[i], len(X), color=True)
        return backbone(np.stack([shrunk(images[i], backbone.size) for i in chosen]))


@lru_cache(maxsize=2)
def _opened(name: str, device: str) -> Backbone:
    return open_backbone(name, device)
