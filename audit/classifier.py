"""A classifier after scikit-learn's conventions that does not mind wrong labels."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from imae.audit.features import Features
from imae.audit.heads import LOSSES, Setting, enough_iterations, train_heads
from imae.prototxt_like.errors import InputError


class IMAEClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A head over features, trained by a robust loss: a fully connected layer, or two, and a softmax.

    Parameters: `loss`, "IMAE", "GCE", "CCE" or "MAE"; `T` of IMAE; `q` of GCE; `hidden`, values between two layers, 0:
    one layer; `rate`, the learning rate; `iterations`, at least, and at least 6 passes over the samples;
    `random_state`, a seed.

    Features are standardised. Fitted, it has `classes_`, `n_features_in_` and `heads_`.
    """

    def __init__(
        self,
        *,
        loss: str = "IMAE",
        T: float = 8.0,
        q: float = 0.7,
        hidden: int = 0,
        rate: float = 0.01,
        iterations: int = 1000,
        random_state: int | None = 0,
    ) -> None:
        self.loss, self.T, self.q, self.hidden = loss, T, q, hidden
        self.rate, self.iterations, self.random_state = rate, iterations, random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> "IMAEClassifier":
        """Train on features (N x D) and labels (N).

        Raises InputError for a setting out of range, ValueError as scikit-learn's estimators do.
        """
        if self.loss not in LOSSES:
            raise InputError(f"loss must be one of {', '.join(LOSSES)}, not {self.loss!r}")
        for name, least in (("hidden", 0), ("iterations", 1), ("rate", 0), ("T", 0)):
            if not getattr(self, name) >= least:
                raise InputError(f"{name} must be at least {least}, not {getattr(self, name)!r}")
        if not 0 < self.q <= 1:
            raise InputError(f"q must lie in (0, 1], not {self.q!r}")
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, given = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"{type(self).__name__} needs samples of at least 2 classes; the data contains one class")
        features = Features(np.asarray(X))
        self._mean, self._scale = features.mean, features.scale
        parameter = {"IMAE": self.T, "GCE": self.q}.get(self.loss, 0.0)
        (self.heads_,) = train_heads(
            features,
            torch.from_numpy(given.astype(np.int64)),
            len(self.classes_),
            [Setting(self.loss, parameter, self.rate)],
            iterations=enough_iterations(self.iterations, len(given)),
            hidden=self.hidden,
            seed=int(self.random_state or 0),
        )
        self.heads_.weights = [weight.double() for weight in self.heads_.weights]  # so that a row's place counts little
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the logits (N x C); of two classes (N) by how much the second's is larger."""
        logits = self._logits(X).numpy()
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the softmax's probabilities (N x C)."""
        probabilities: NDArray[np.float64] = torch.softmax(self._logits(X), 1).numpy()
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class of each sample."""
        chosen = self._logits(X).argmax(1).numpy()
        predicted: NDArray[Any] = self.classes_[chosen]
        return predicted

    def _logits(self, X: ArrayLike) -> Tensor:
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False)
        return self.heads_.logits(Features.standardised(rows, self._mean, self._scale).double())[0].t()
