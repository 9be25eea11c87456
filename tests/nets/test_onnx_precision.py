"""Models in fewer bits, and those whose weights one file cannot hold."""

import gc
import json
import re
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from imae.layers.data.image_set import mean_image
from imae.nets import onnx_model
from imae.nets.digits_net import digits_net
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.nets.onnx_precision import calibration_feeds, convert
from imae.nets.onnx_verify import verify
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net


@pytest.fixture
def digits() -> Net:
    net = Net(digits_net("imae"), backward=False)
    for blob in net.learnable:
        blob.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(1)).abs_()
    return net


@pytest.mark.parametrize(
    ("precision", "calibrated", "preprocess"),
    [("fp16", False, True), ("int8", False, True), ("int8", True, True), ("int8", True, False)],
)
def test_a_model_in_fewer_bits_is_smaller_and_nearly_right(
    digits: Net, precision: str, calibrated: bool, preprocess: bool, tmp_path: Path
) -> None:
    from PIL import Image

    report = export_onnx(digits, None, tmp_path / "net.onnx", outputs=["score"], preprocess=preprocess, opset=17)
    before, size = verify(report, digits).difference, report.path.stat().st_size
    pixels = digits.steps[0].layer.images[:8].numpy()
    for i, image in enumerate(pixels):
        Image.fromarray(image[0]).save(tmp_path / f"{i}.png")
    files = sorted(tmp_path.glob("*.png")) if calibrated else []
    convert(report.path, precision, calibration_feeds(report, digits, files))
    assert report.path.stat().st_size < 0.8 * size
    metadata = onnxruntime.InferenceSession(report.path).get_modelmeta().custom_metadata_map
    assert (metadata["imae.precision"], metadata["imae.net"]) == (precision, "digits")
    assert verify(report, digits, tolerance=float("inf"), kinds=["random"]).difference > before
    seen = report.images["data"].seen(torch.from_numpy(pixels.transpose(0, 2, 3, 1))) if preprocess else None
    fed = pixels.astype(np.float32) - mean_image(digits.steps[0].layer.images).numpy() if seen is None else seen.numpy()
    given = pixels.transpose(0, 2, 3, 1) if preprocess else fed
    (score,) = onnxruntime.InferenceSession(report.path).run(None, {"data": np.ascontiguousarray(given)})
    expected = report.net.forward(data=fed)["score"].numpy()
    assert np.abs(score - expected).max() < {"fp16": 0.01, "int8": 0.3}[precision] * expected.std()


def test_what_cannot_be_converted_is_said(digits: Net, tmp_path: Path) -> None:
    report = export_onnx(digits, None, tmp_path / "net.onnx")
    with pytest.raises(InputError, match='the precision must be one of fp32, fp16, int8, not "int4"'):
        convert(report.path, "int4")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / 'text.png'))}: no image that can be decoded"):
        convert(report.path, "int8", calibration_feeds(report, digits, [tmp_path / "text.png"]))


@pytest.mark.parametrize(("precision", "calibrated"), [("fp16", False), ("int8", False), ("int8", True)])
def test_weights_in_a_file_of_their_own_are_converted_too(
    digits: Net, precision: str, calibrated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = [{"data": digits.forward() and digits.blobs["data"].numpy()}] if calibrated else []
    whole, parted = tmp_path / "whole" / "net.onnx", tmp_path / "parted" / "net.onnx"
    for path, limit in ((whole, onnx_model.LARGEST_FILE), (parted, 1000)):
        path.parent.mkdir()
        monkeypatch.setattr(onnx_model, "LARGEST_FILE", limit)
        export_onnx(digits, None, path, opset=17)
        convert(path, precision, fed)
    assert [path.name for path in whole.parent.iterdir()] == ["net.onnx"]
    assert sorted(path.name for path in parted.parent.iterdir()) == ["net.onnx", "net.onnx.data"]
    assert parted.stat().st_size + (parted.parent / "net.onnx.data").stat().st_size < whole.stat().st_size + 5000
    assert (parted.parent / "net.onnx.data").stat().st_size > 0.4 * whole.stat().st_size
    given = {"data": np.random.default_rng(0).standard_normal((2, 1, 8, 8), np.float32)}
    one, other = (onnxruntime.InferenceSession(path).run(None, given)[0] for path in (whole, parted))
    np.testing.assert_array_equal(one, other)


def test_conversion_leaves_files_beside_the_model_alone(digits: Net, tmp_path: Path) -> None:
    """ONNX Runtime's tools write NAME-inferred.onnx beside what they read, and remove it."""
    path, before = export_onnx(digits, None, tmp_path / "net.onnx").path, tempfile.tempdir
    (tmp_path / "net-inferred.onnx").write_text("another's")
    convert(path, "int8", [{"data": np.zeros((1, 1, 8, 8), np.float32)}])
    assert sorted(found.name for found in tmp_path.iterdir()) == ["net-inferred.onnx", "net.onnx"]
    assert (tmp_path / "net-inferred.onnx").read_text() == "another's"
    assert tempfile.tempdir == before


def test_weights_that_one_file_cannot_hold_go_into_another(
    digits: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_model, "LARGEST_FILE", 30_000)
    report = export_onnx(digits, None, tmp_path / "net.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    assert report.path.stat().st_size < 20_000
    onnx.checker.check_model(report.path, full_check=True)
    assert verify(report, digits).difference < 1e-4
    monkeypatch.undo()
    export_onnx(digits, None, tmp_path / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"], "what belonged to the file before is gone"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "bits", "calibrated"),
    [("fp32", 32, False), ("fp16", 16, False), ("int8", 8, False), ("int8", 8, True)],
)
def test_more_than_2_gib_of_weights_are_exported_converted_and_run(
    precision: str, bits: int, calibrated: bool, tmp_path: Path
) -> None:
    """541.5 million numbers, in six inner products that take an average; in 8 GB of memory."""
    size, names = 9_500, "abcdefg"
    settings = f"num_output: {size} bias_term: false weight_filler {{ value: {1 / size} }}"
    layers = "".join(
        f'layer {{ name: "{top}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" '
        f"inner_product_param {{ {settings} }} }}"
        for bottom, top in pairwise(names)
    )
    net = Net(parse_net(f'input: "a" input_shape {{ dim: 1 dim: {size} }} {layers}'), backward=False)
    path = export_onnx(net, None, tmp_path / "net.onnx").path
    del net
    gc.collect()  # it has references to itself
    assert (tmp_path / "net.onnx.data").stat().st_size == 4 * 6 * size**2 > 2**31
    convert(path, precision, [{"a": np.ones((1, size), np.float32)}] if calibrated else [])
    assert {file.name for file in tmp_path.iterdir()} <= {"net.onnx", "net.onnx.data"}
    held = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert held == pytest.approx(6 * size**2 * bits / 8, rel=1e-3)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"a": np.ones((2, size), np.float32)})
    assert y.shape == (2, size)
    np.testing.assert_allclose(y, 1, rtol={32: 1e-5, 16: 0.01, 8: 0.02}[bits])


@pytest.mark.slow
def test_the_real_resnet20_is_as_accurate_in_onnx_runtime_alone(cifar10_root: Path, tmp_path: Path) -> None:
    """91.81 % on the uint8 test images, which Caffe 1.0 printed; int8 within half a percent of them."""
    from benchmarks.onnx_sizes import BENCHMARK, RESNET20

    if not RESNET20.exists():
        pytest.skip("the real net is not at ../shared/data/resnet20")
    BENCHMARK.main(None, ["--data", str(cifar10_root), "--output", str(tmp_path / "record.json"), "--rounds", "3"])
    rows = {row["form"]: row for row in json.loads((tmp_path / "record.json").read_text())["rows"]}
    assert rows["folded"]["accuracy"] == rows["unfolded"]["accuracy"] == "91.81"
    assert all(abs(float(rows[form]["accuracy"]) - 91.81) <= 0.5 for form in rows)
    assert rows["int8, calibrated"]["bytes"] < rows["fp16"]["bytes"] < rows["folded"]["bytes"]
