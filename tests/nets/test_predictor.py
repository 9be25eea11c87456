"""Prediction: a prototxt and each form of its export say the same of the same image, whatever it is given as."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import imae
from imae import InputError, Net, Predictor
from imae.nets.onnx_export import export_onnx
from imae.nets.onnx_preprocess import ImageOptions
from imae.prototxt_like.binary import write_caffemodel

LABELS = ["ape", "bee", "cat", "dog"]
OPTIONS = ImageOptions(channels="BGR", mean="104,117,123", scale=0.02)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.prototxt"
    path.write_text("""
    name: "deployed"
    layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 10 } } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
      convolution_param { num_output: 4 kernel_size: 3 stride: 2 weight_filler { type: "msra" } } }
    layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE global_pooling: true } }
    layer { name: "prob" type: "Softmax" bottom: "pool" top: "prob" }
    """)
    write_caffemodel(Net(path).to_proto(), path.with_suffix(".caffemodel"))
    return path


def images(count: int = 5) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 8, 10, 3), np.uint8)


def by_the_net(model: Path, pixels: np.ndarray) -> np.ndarray:
    """Caffe's way with an image: blue, green, red, less the mean, scaled."""
    net = Net(model, backward=False)
    net.copy_weights(model.with_suffix(".caffemodel"))
    seen = (pixels[..., ::-1].astype(np.float32) - [104, 117, 123]) * 0.02
    return net.forward(data=seen.transpose(0, 3, 1, 2))["prob"].numpy()


@pytest.mark.parametrize("form", ["prototxt", "prepared", "floats", "fixed"])
def test_each_form_of_a_net_predicts_what_the_net_does(model: Path, form: str, tmp_path: Path) -> None:
    path, options = model, OPTIONS
    if form != "prototxt":
        path = tmp_path / "net.onnx"
        weights, raw = model.with_suffix(".caffemodel"), form == "prepared"
        dynamic = () if form == "fixed" else ("batch", "height", "width")
        given = {"preprocess": OPTIONS if raw else False, "labels": LABELS if raw else ()}
        export_onnx(model, weights, path, dynamic=dynamic, **given)
        options = ImageOptions() if raw else OPTIONS
    predictor = Predictor(path, options=options, batch=3, labels=() if form == "prepared" else LABELS)
    assert predictor.provider == "CPU"
    found = predictor(images())
    expected = by_the_net(model, images())
    np.testing.assert_allclose(found["prob"], expected, atol=1e-5)
    best = expected.reshape(5, 4).argmax(1)
    assert [top[0][0] for top in found.top(2)] == [LABELS[i] for i in best]
    assert [len(top) for top in found.top(2)] == [2] * 5


def test_an_image_may_be_a_file_of_pillows_or_an_array_of_any_size(model: Path, tmp_path: Path) -> None:
    predictor, (pixels, *_) = Predictor(model, options=OPTIONS), images()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    alpha = np.dstack([pixels, np.full((8, 10), 7, np.uint8)])
    same = predictor([str(tmp_path / "a.png"), tmp_path / "a.png", Image.open(tmp_path / "a.png"), pixels, alpha])
    assert np.ptp(same["prob"], axis=0).max() < 1e-6
    assert predictor(pixels)["prob"].shape == (1, 4, 1, 1)
    gray = np.full((30, 20), 200, np.uint8)
    sizes = predictor([gray, np.full((8, 10, 3), 200, np.uint8), gray[:, :, None]])["prob"]
    assert np.ptp(sizes, axis=0).max() < 1e-6
    assert predictor([]) == {}


def test_a_net_of_the_training_reads_its_own_transform_and_any_value_can_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "train.prototxt"
    path.write_text("""
    layer { name: "in" type: "ImageData" top: "data" top: "label" image_data_param { source: "none.txt" }
      transform_param { crop_size: 4 mean_value: 9 scale: 2 } }
    layer { name: "sum" type: "Reduction" bottom: "data" top: "sum" reduction_param { axis: 1 } }
    layer { name: "half" type: "Power" bottom: "data" top: "half" power_param { scale: 0.5 } }
    layer { name: "twice" type: "Power" bottom: "half" top: "twice" power_param { scale: 2 } }
    """)
    pixels = np.arange(6 * 6 * 3, dtype=np.uint8).reshape(6, 6, 3)
    seen = (pixels[1:5, 1:5, ::-1].transpose(2, 0, 1).astype(np.float32) - 9) * 2
    found = Predictor(path, shape=(3, 4, 4), outputs=["half", "sum"])(pixels)
    np.testing.assert_allclose(found["half"][0], seen / 2)
    np.testing.assert_allclose(found["sum"][0], seen.sum(), rtol=1e-6)
    export_onnx(path, None, tmp_path / "net.onnx", shape=(3, 4, 4), outputs=["twice"], preprocess=True)
    for model in (path, tmp_path / "net.onnx"):
        with pytest.raises(InputError, match="image 0: an image of 3x6, of which 4x4 cannot be cut"):
            Predictor(model, shape=(3, 4, 4))(pixels[:3])
    within = Predictor(tmp_path / "net.onnx", outputs=["half"])(pixels)
    np.testing.assert_allclose(within["half"][0], seen / 2)
    with pytest.raises(InputError, match=r'no node of it makes "halv"; did you mean "half"\?'):
        Predictor(tmp_path / "net.onnx", outputs=["halv"])


@pytest.mark.parametrize("in_place", ["", 'layer { name: "relu" type: "ReLU" bottom: "data" top: "data" }'])
def test_what_the_net_sees_of_the_images_may_be_asked_for_by_the_blobs_name(in_place: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(f'name: "n" input: "data" input_shape {{ dim: 1 dim: 3 dim: 8 dim: 10 }} {in_place}')
    found = Predictor(path, options=OPTIONS, outputs=["data"])(images())["data"]
    seen = ((images()[..., ::-1].astype(np.float32) - [104, 117, 123]) * 0.02).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, seen.clip(0) if in_place else seen, atol=1e-6)


def test_images_that_cannot_be_read_are_named_or_passed_over(model: Path, tmp_path: Path) -> None:
    predictor, broken = Predictor(model, options=OPTIONS), []
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"junk")
    with pytest.raises(InputError, match=r"bad\.jpg: no image that can be decoded"):
        predictor([images()[0], bad])
    with pytest.raises(InputError, match="image 0: an array of 8x10x3 float64, expected uint8"):
        predictor(images()[0] / 255)
    files = [images()[0], bad, images()[1]]
    rows = list(predictor.each(files, lambda number, error: broken.append((number, str(error)))))
    assert [number for number, _ in rows] == [0, 2]
    assert [number for number, _ in broken] == [1]


def test_what_cannot_be_predicted_with_is_said_in_a_line(model: Path, tmp_path: Path) -> None:
    prepared = tmp_path / "net.onnx"
    export_onnx(model, model.with_suffix(".caffemodel"), prepared, preprocess=OPTIONS)
    with pytest.raises(InputError, match="prepares images itself"):
        Predictor(prepared, options=OPTIONS)
    with pytest.raises(InputError, match="has its weights in itself"):
        Predictor(prepared, "net.caffemodel")
    with pytest.raises(InputError, match="2 labels do not fit its outputs: prob 4"):
        Predictor(prepared, labels=["a", "b"])
    graph = onnx.load(prepared)
    graph.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    onnx.save(graph, tmp_path / "ints.onnx")
    with pytest.raises(InputError, match=r"ints\.onnx: "):
        Predictor(tmp_path / "ints.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"bad\.onnx: ONNX Runtime \S+ cannot load it"):
        imae.Predictor(tmp_path / "bad.onnx")
    model.with_suffix(".caffemodel").unlink()
    with pytest.raises(InputError, match="no weights were given"):
        Predictor(model)
