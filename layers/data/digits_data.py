"""DigitsData: the 1,797 handwritten digits that come with scikit-learn."""

import functools
import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imae.layers.data.image_set import ImageSetData
from imae.layers.random_streams import permutation
from imae.prototxt_like.errors import InputError

TEST_IMAGES = 500
DIGITS = 10


class DigitsData(ImageSetData):
    """Images of 1 x 8 x 8 with values 0 to 16, and labels 0 to 9: 1,297 for training and 500 for testing.

    The split is fixed: in the order `permutation(1797, seed=0, "digits split")` of `sklearn.datasets.load_digits`'s
    images, the first 500 test and the others train. With `digit: 7 digit: 3`, and so on, both splits keep these digits
    alone, and the labels 0, 1, ... are places in that list; label noise draws among them, and the mean is theirs.
    """

    type = "DigitsData"
    field = "digits_data_param"

    @property
    def num_classes(self) -> int:
        return len(self.param.digits_data_param.digit) or DIGITS

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        images, labels = load_digits(train)
        chosen = list(self.param.digits_data_param.digit)
        if not chosen:
            return images, labels
        if len(set(chosen)) < len(chosen) or max(chosen) >= DIGITS:
            raise InputError(f"{self.field}: digit {', '.join(map(str, chosen))}: expected different ones of 0 to 9")
        places = labels[:, None] == torch.tensor(chosen)
        kept = places.any(1)
        return images[kept], places[kept].int().argmax(1)


@functools.lru_cache(maxsize=2)
def load_digits(train: bool) -> tuple[Tensor, Tensor]:
    """Return the images (N x 1 x 8 x 8, uint8) and labels (N, int64) of the training or the test split.

    Raises InputError if scikit-learn, whose file is read (importing the package would take a second), is missing.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise InputError("the digits come with scikit-learn, which is not installed: pip install scikit-learn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(path) as file:
            table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.int64))
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: the digits cannot be read: {error}") from error
    order = permutation(len(table), seed=0, stream="digits split")
    table = table[order[TEST_IMAGES:] if train else order[:TEST_IMAGES]]
    return table[:, :64].to(torch.uint8).view(-1, 1, 8, 8), table[:, 64].contiguous()
