"""Data sets of PyTorch and Hugging Face are audited as they are, images read when they are needed."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from torch.utils.data import Dataset, Subset, TensorDataset

import imae
from imae.audit import data_sets, features, find_label_issues, label_issues, pixel_net
from imae.audit.data_set_images import as_image
from imae.audit.data_sets import read_data_set
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 5, 7), np.uint8)  # red, green, blue
CAFFE = """
name: "tiny"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "flat" type: "Flatten" bottom: "data" top: "flat" }
layer { name: "fc" type: "InnerProduct" bottom: "flat" top: "fc" inner_product_param { num_output: 2 } }
"""


class Pairs(Dataset[Any]):
    """Counts how often items are read."""

    def __init__(self, values: Any, labels: Any) -> None:
        self.values, self.labels, self.read = values, labels, 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Any:
        self.read += 1
        return self.values[index], self.labels[index]


@pytest.mark.parametrize(
    "value",
    [
        PIXELS,
        torch.from_numpy(PIXELS),
        PIXELS.transpose(1, 2, 0),
        Image.fromarray(PIXELS.transpose(1, 2, 0)),
        torch.from_numpy(PIXELS).float() / 255,
        PIXELS.astype(np.float64) / 255,
        PIXELS.astype(np.int64),
        np.concatenate([PIXELS, np.full((1, 5, 7), 9, np.uint8)]),
    ],
)
def test_images_of_every_kind_are_blue_green_red(value: Any) -> None:
    np.testing.assert_array_equal(as_image(value, None), PIXELS[::-1])
    gray = as_image(value, False).astype(float)
    assert gray.shape == (1, 5, 7)
    np.testing.assert_allclose(gray[0], np.tensordot([0.299, 0.587, 0.114], PIXELS, 1), atol=1.01)


def test_gray_images_become_colored_where_the_first_is() -> None:
    images = read_data_set(Pairs([PIXELS, PIXELS[:1]], [0, 1])).images
    np.testing.assert_array_equal(images[1], PIXELS[:1].repeat(3, 0))  # type: ignore[index]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((3, 4, 4), -1.9), "floats 0 to 1, before any Normalize"),
        (np.full((3, 4, 4), 300), "integers 0 to 255"),
        (np.zeros((3, 0, 4), np.uint8), "is no image"),
        ("cat.png", "str is no image"),
    ],
)
def test_what_is_no_image_is_named(value: Any, message: str) -> None:
    images = read_data_set(Pairs([PIXELS, value], [0, 1])).images
    with pytest.raises(InputError, match=rf"^item 1: .*{message}"):
        images[1]  # type: ignore[index]


def test_labels_and_names_that_torchvision_keeps_are_taken_without_reading_an_item() -> None:
    pairs = Pairs([PIXELS] * 6, None)
    pairs.targets, pairs.classes = torch.tensor([2, 0, 0, 2, 2, 1]), ["a", "b", "c"]  # type: ignore[attr-defined]
    pairs.labels = pairs.targets  # type: ignore[attr-defined]
    samples = read_data_set(Subset(pairs, [0, 1, 3]))
    assert (samples.label.tolist(), samples.classes, pairs.read) == ([1, 0, 1], ["a", "c"], 2)
    pairs.classes = ["a", "b"]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"^item 0 has the label 2, of 2 classes"):
        read_data_set(pairs)


def test_features_of_items_that_do_not_fit_are_named() -> None:
    with pytest.raises(InputError, match=r"^item 1: has 3 values, expected 2"):
        read_data_set(Pairs([np.zeros(2), np.zeros(3)], [0, 1]))
    for data in (iter([]), Pairs([], []), [1, 2]):
        with pytest.raises(InputError, match=r"^expected labels, or a data set"):
            read_data_set(data)


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Images, and labels a tenth of which is wrong; trainings are a moment long."""
    for module, name, value in (
        (label_issues, "ITERATIONS", 20),
        (pixel_net, "ITERATIONS", 4),
        (pixel_net, "EPOCHS", 1),
    ):
        monkeypatch.setattr(module, name, value)
    images, labels = load_digits(n_class=3, return_X_y=True)
    yield torch.from_numpy(images[:60].reshape(-1, 1, 8, 8)).float() / 16, labels[:60]


@pytest.fixture
def backbone(tmp_path: Path) -> str:
    (tmp_path / "deploy.prototxt").write_text(CAFFE)
    Net(parse_net(CAFFE)).write_weights(tmp_path / "tiny.caffemodel")
    return f"{tmp_path}/deploy.prototxt,{tmp_path}/tiny.caffemodel"


def test_images_go_through_the_pixel_net_or_a_backbone(digits: tuple[torch.Tensor, np.ndarray], backbone: str) -> None:
    images, labels = digits
    data = TensorDataset(images, torch.from_numpy(labels))
    found = find_label_issues(data, parameter=8.0, folds=0)
    assert found.features is not None and found.features.width == 32 and len(found.score) == 60
    pictures = [Image.fromarray((image[0].numpy() * 255).astype(np.uint8)) for image in images]
    names = np.array(["zero", "one", "two"])[labels]
    found = find_label_issues(pictures, names, backbone=backbone, parameter=8.0, folds=0)
    assert found.features is not None and found.features.width == 192 and found.classes == ["one", "two", "zero"]
    with pytest.raises(InputError, match=r"^backbone is for data sets of images"):
        find_label_issues(images.flatten(1), labels, backbone=backbone)
    broken = Pairs([*pictures[:20], "no image"], [0, 1, 2] * 7)
    with pytest.raises(InputError, match=r"^item 20: str is no image"):
        find_label_issues(broken, backbone=backbone)


def test_the_transformer_stands_in_a_pipeline_and_in_a_pickle(
    digits: tuple[torch.Tensor, np.ndarray], backbone: str
) -> None:
    images, labels = digits
    pipeline = make_pipeline(imae.ImageFeatures(backbone), imae.IMAEClassifier(iterations=300))
    fitted = pickle.loads(pickle.dumps(clone(pipeline).fit(images, labels)))
    assert fitted.score(images, labels) == 1
    assert fitted[0].get_feature_names_out()[-1] == "imagefeatures191"
    pixels = (images * 255).round().byte().numpy()
    means = np.array([104, 117, 123])[:, None, None]
    np.testing.assert_array_equal(fitted[0].transform(list(pixels)), (pixels - means).reshape(60, -1))
    with pytest.raises(InputError, match=r"^item 0: an array of the shape \(8,\) is no image"):
        fitted.predict(np.zeros((3, 8)))


@pytest.mark.slow
def test_many_features_are_kept_in_a_file_that_processes_share(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = load_digits(return_X_y=True)
    pairs, options = Pairs(images, labels), {"parameter": 8.0, "folds": 2, "seeds": 2}
    expected = find_label_issues(pairs, **options)  # type: ignore[arg-type]
    for module in (data_sets, features):
        monkeypatch.setattr(module, "IN_MEMORY", 1000)
    found = find_label_issues(pairs, jobs=2, **options)  # type: ignore[arg-type]
    assert isinstance(found.features._table.base, np.memmap)  # type: ignore[union-attr]
    np.testing.assert_array_equal(found.logits, expected.logits)


@pytest.mark.slow
def test_the_transformer_passes_scikit_learns_own_checks() -> None:
    results = check_estimator(imae.ImageFeatures(), on_fail=None, on_skip=None)
    assert len(results) > 30
    assert [result for result in results if result["status"] == "failed"] == []


@pytest.fixture
def hugging_face() -> Callable[..., Any]:
    return pytest.importorskip("datasets", reason="needs datasets: pip install 'imae[datasets]'").Dataset.from_dict  # type: ignore[no-any-return]


def test_hugging_faces_images_and_names(
    hugging_face: Callable[..., Any], digits: tuple[torch.Tensor, np.ndarray]
) -> None:
    import datasets

    images, labels = digits
    pictures = [Image.fromarray((image[0].numpy() * 255).astype(np.uint8)) for image in images]
    kinds = datasets.Features(
        {
            "id": datasets.Value("string"),
            "image": datasets.Image(),
            "kind": datasets.ClassLabel(names=["zero", "one", "two", "three"]),
        }
    )
    data = hugging_face({"id": ["x"] * 60, "image": pictures, "kind": labels}, features=kinds).with_format("torch")
    samples = read_data_set(data)
    assert samples.classes == ["zero", "one", "two"] and samples.label.tolist() == labels.tolist()
    np.testing.assert_array_equal(samples.images[7], np.asarray(pictures[7])[None])  # type: ignore[index]
    found = find_label_issues(data, parameter=8.0, folds=0)
    assert found.classes == ["zero", "one", "two"] and found.features is not None
    with pytest.raises(InputError, match=r'^no column "knd", it has id, image, kind; did you mean "kind"'):
        find_label_issues(data, "knd")
    both, stream = datasets.DatasetDict(train=data, test=data), data.to_iterable_dataset()
    for wrong, message in ((both, "expected one data set, of train, test"), (stream, "not a stream")):
        with pytest.raises(InputError, match=message):
            find_label_issues(wrong)


def test_hugging_faces_columns_of_numbers(hugging_face: Callable[..., Any]) -> None:
    data = hugging_face({"x": [[1.0, 2.0], [3.0, 4.0]] * 700, "size": [5, 6] * 700, "label": ["a", "b"] * 700})
    samples = read_data_set(data)
    assert samples.features is not None and samples.classes == ["a", "b"]
    np.testing.assert_array_equal(samples.features, np.array([[1, 2, 5], [3, 4, 6]] * 700))
    given = read_data_set(data.select_columns(["x"]), [0, 1] * 700)
    assert given.features is not None and given.features.shape == (1400, 2)
    for wrong, message in (
        ({"x": ["text"], "label": ["a"]}, 'column "x" holds no images and no numbers'),
        ({"x": [[1.0], [1.0, 2.0]], "label": ["a", "b"]}, 'column "x" holds no images and no numbers'),
        ({"x": [1.0], "y": [2.0]}, "^0 columns of labels among x, y: name one by labels"),
        ({"label": [1, 2]}, "without a column beside the labels"),
    ):
        with pytest.raises(InputError, match=message):
            read_data_set(hugging_face(wrong))
