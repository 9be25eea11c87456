"""Extraction of features: a row for each image, once, in order, whatever interrupts it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from imae.experiments.features import extract_features
from imae.experiments.mars_info import write_miniature
from imae.layers.data.digits_data import TEST_IMAGES, load_digits
from imae.layers.data.label_noise import load_labels
from imae.nets.net import Net
from imae.prototxt_like.binary import write_caffemodel
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, NetParameter
from imae.prototxt_like.text import parse_net

NET = """
name: "digits"
layer { name: "data" type: "DigitsData" top: "data" top: "label" digits_data_param { batch_size: 60 }
  transform_param { mean_value: 0 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "score" type: "InnerProduct" bottom: "conv" top: "score"
  inner_product_param { num_output: 10 weight_filler { type: "msra" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A net on 500 images, in batches of which the last is not full, and its weights beside it."""
    (tmp_path / "net.prototxt").write_text(NET)
    write_caffemodel(Net(parse_net(NET), TEST, seed=1).to_proto(), tmp_path / "net.caffemodel")
    return tmp_path / "net.prototxt"


def extract(model: Path, blob: str = "conv", name: str = "features.npy", **options: object) -> np.ndarray:
    output = model.parent / name
    extract_features(model, model.with_suffix(".caffemodel"), blob, output, **options)  # type: ignore[arg-type]
    return np.load(output)


def expected(model: Path, blob: str) -> np.ndarray:
    net = Net(model, TEST)
    net.copy_weights(model.with_suffix(".caffemodel"))
    images = load_digits(False)[0].float()
    net.steps[0].layer.batch = lambda number: [images, torch.zeros(len(images))]  # type: ignore[attr-defined]
    net.forward()
    return net.blobs[blob].flatten(1).numpy()


def test_there_is_a_row_for_each_image_in_order_of_the_blob_after_what_works_in_place(model: Path) -> None:
    features = extract(model)
    assert (features.shape, features.dtype) == ((TEST_IMAGES, 3 * 6 * 6), np.float32)
    assert (features >= 0).all()
    np.testing.assert_allclose(features, expected(model, "conv"), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(extract(model, "score"), expected(model, "score"), rtol=1e-5, atol=1e-4)
    assert sorted(path.name for path in model.parent.iterdir()) == ["features.npy", "net.caffemodel", "net.prototxt"]


def test_half_precision_gives_float32_rows(model: Path) -> None:
    features = extract(model, dtype=torch.bfloat16)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected(model, "conv"), rtol=0.1, atol=0.5)


def stop_after(images: int) -> Callable[[int, int], None]:
    def on_progress(done: int, total: int) -> None:
        assert total == TEST_IMAGES
        if done >= images:
            raise KeyboardInterrupt

    return on_progress


@pytest.mark.parametrize("cut", [0, 1, 100, 431, 10**6])
def test_an_interrupted_extraction_goes_on_from_its_last_whole_batch(model: Path, cut: int) -> None:
    """The last `cut` bytes never reached the disk."""
    whole = extract(model, name="whole.npy")
    with pytest.raises(KeyboardInterrupt):
        extract(model, on_progress=stop_after(180))
    (partial,) = model.parent.glob("features.npy.*.partial")
    partial.write_bytes(partial.read_bytes()[: -cut or None])
    done: list[int] = []
    again = extract(model, on_progress=lambda rows, total: done.append(rows))
    assert done[0] == {0: 240, 10**6: 60}.get(cut, 180)
    assert again.tobytes() == whole.tobytes()
    assert not list(model.parent.glob("*.partial"))


def test_rows_of_other_weights_or_another_blob_are_not_gone_on_from(model: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract(model, on_progress=stop_after(180))
    write_caffemodel(Net(parse_net(NET), TEST, seed=2).to_proto(), model.with_suffix(".caffemodel"))
    for blob in ("conv", "score"):
        np.testing.assert_allclose(extract(model, blob), expected(model, blob), rtol=1e-5, atol=1e-4)


def test_the_data_may_lie_elsewhere(tmp_path: Path) -> None:
    """And in phase TEST it is the test part's frames."""
    text = """
    layer { name: "data" type: "MarsData" top: "data" top: "label" include { phase: TRAIN }
      mars_data_param { source: "MARS" batch_size: 4 } }
    layer { name: "data" type: "MarsData" top: "data" include { phase: TEST }
      mars_data_param { source: "MARS" batch_size: 4 } }
    layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: AVE global_pooling: true } }
    """
    model = tmp_path / "net.prototxt"
    model.write_text(text)
    layers = [{"name": "of another net", "blobs": [{"data": [1.0]}]}]
    write_caffemodel(NetParameter(layer=layers), tmp_path / "net.caffemodel")
    write_miniature(tmp_path / "there", persons=1, tracks_per_person=2, frames_per_track=1, size=(8, 8))
    assert extract(model, "pool", data=tmp_path / "there").shape == (6, 3)


@pytest.mark.parametrize(
    ("change", "blob", "message"),
    [
        (None, "cnv", r'net\.prototxt: no layer of its TEST phase has the top "cnv"; did you mean "conv"\?'),
        (None, "loss", r'net\.prototxt: "loss" is scalar, expected a row for each of 60 images'),
        (('name: "conv"', 'name: "other"'), "conv", r"net\.caffemodel: lacks weights of the layers other of .*"),
        (("num_output: 3", "num_output: 4"), "conv", r'layer "conv": blob 0 is 4x1x3x3, .* has 3x1x3x3'),
        (
            (
                NET[: NET.index('layer { name: "conv"')],
                'layer { name: "data" type: "Input" top: "data" input_param '
                "{ shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }",
            ),
            "conv",
            "has 0 data layers .*, expected one",
        ),
    ],
)
def test_a_user_is_told_what_is_wrong(model: Path, change: tuple[str, str] | None, blob: str, message: str) -> None:
    if change:
        model.write_text(NET.replace(*change))
    with pytest.raises(InputError, match=message):
        extract(model, blob)
    assert not list(model.parent.glob("features*"))


def test_places_that_do_not_exist_are_named(model: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere/f\.npy: cannot be written: No such file"):
        extract(model, name="nowhere/f.npy")
    with pytest.raises(InputError, match=r"has no data layer with a source that .* could replace"):
        extract(model, data=Path("elsewhere"))


def test_labels_are_written_as_noise_file_reads_them(model: Path) -> None:
    labels = extract(model, "label", name="labels.npy")
    assert labels.shape == (TEST_IMAGES,)
    intact = load_digits(False)[1]
    np.testing.assert_array_equal(load_labels(model.parent / "labels.npy", TEST_IMAGES, 10), intact)
    np.save(model.parent / "column.npy", labels[:, None])
    np.testing.assert_array_equal(load_labels(model.parent / "column.npy", TEST_IMAGES, 10), intact)


def test_a_data_layer_for_training_alone_is_named(model: Path) -> None:
    model.write_text(NET.replace('type: "DigitsData"', 'type: "DigitsData" include { phase: TRAIN }'))
    for blob in ("conv", "data"):
        message = (
            r'net.prototxt: .*"data".*; layer "data" \(DigitsData\) has it as a top, but its include rules .* TEST'
        )
        with pytest.raises(InputError, match=message):
            extract(model, blob)
