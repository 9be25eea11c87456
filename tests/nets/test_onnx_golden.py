"""Each layer, exported alone, gives in ONNX Runtime what Caffe 1.0 gave: the records in tests/golden."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from imae.layers.layer import Layer
from imae.layers.registry import registry
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.nets.onnx_import import import_onnx
from imae.nets.onnx_model import newest_opset
from imae.prototxt_like.known_names import CAFFE_LAYERS
from imae.prototxt_like.schema import TEST, LayerParameter
from imae.prototxt_like.text import parse_net

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
OPSETS = (13, 17, newest_opset())


def layer_of(record: Path) -> LayerParameter:
    net = parse_net(str(np.load(record)["prototxt"]))
    return next(layer for layer in net.layer if layer.name == "layer")


def has_meaning_at_inference(record: Path) -> bool:
    """Whether what was recorded is the layer's TEST phase, and no measure of predictions by labels."""
    kind, phase = registry[layer_of(record).type], str(np.load(record)["phase"])
    if phase == "TRAIN" and kind.type in ("BatchNorm", "Dropout"):
        return False
    return not kind.is_loss and kind.type != "Accuracy"


RECORDS = [
    record
    for folder in ("layers", "random")
    for record in sorted((GOLDEN / folder).glob("*.npz"))
    if has_meaning_at_inference(record)
]


def net_of(golden: Mapping[str, np.ndarray]) -> tuple[Net, list[str]]:
    """The net of a record with its blobs, and the layer's tops."""
    net = Net(parse_net(str(golden["prototxt"])), backward=False)
    step = next(step for step in net.steps if step.layer.name == "layer")
    for k, blob in enumerate(step.layer.blobs):
        blob.data.copy_(torch.from_numpy(golden[f"param_{k}"]))
    return net, list(step.layer.param.top)


def assert_as_recorded(golden: Mapping[str, np.ndarray], i: int, actual: np.ndarray, what: str) -> None:
    """Agree to the layers' tolerance: rtol 1e-4, with atol 1e-5 of the array's largest magnitude."""
    expected = golden[f"top_{i}"]
    largest = float(np.abs(expected).max()) if expected.size else 0.0
    assert actual.shape == expected.shape, what
    np.testing.assert_allclose(actual, expected, 1e-4, 1e-5 * largest, err_msg=what)


def check(record: Path, opset: int, folder: Path, *, fold: bool = True) -> None:
    """What ONNX Runtime gives is what was recorded."""
    golden = np.load(record)
    net, tops = net_of(golden)
    report = export_onnx(net, None, folder / "net.onnx", opset=opset, outputs=tops, fold_channels=fold)
    assert onnx.load(folder / "net.onnx").opset_import[0].version == opset
    session = onnxruntime.InferenceSession(folder / "net.onnx", providers=["CPUExecutionProvider"])
    feeds = {name: golden[f"bottom_{i}"].astype(np.float32) for i, name in enumerate(net.inputs)}
    states = {name: report.inputs[name] for name, _ in report.states.values()}
    feeds |= {name: np.zeros((1, golden["bottom_0"].shape[1], shape[2]), np.float32) for name, shape in states.items()}
    given = session.run(list(report.outputs)[: len(tops)], feeds)
    for i, (name, actual) in enumerate(zip(tops, given, strict=True)):
        assert_as_recorded(golden, i, actual, f"{name}, opset {opset}")


def check_back(record: Path, opset: int, folder: Path) -> None:
    """What the imported prototxt and caffemodel give is what was recorded."""
    golden = np.load(record)
    net, tops = net_of(golden)
    export_onnx(net, None, folder / "net.onnx", opset=opset, outputs=tops, dynamic=())
    report = import_onnx(folder / "net.onnx", folder / "back")
    again = Net(report.prototxt, TEST, backward=False)
    assert again.copy_weights(report.caffemodel).kept == []
    assert again.inputs == net.inputs
    again.forward(**{name: torch.from_numpy(golden[f"bottom_{i}"]).float() for i, name in enumerate(net.inputs)})
    for i, name in enumerate(tops):
        assert_as_recorded(golden, i, again.blobs[name].numpy(), f"{name}, opset {opset}")


def test_every_kind_of_caffes_layers_is_among_the_records() -> None:
    without_record = {"Dropout", "LSTMUnit", "Parameter", "Python", "Silence", "Split"}
    exported = {kind for kind in CAFFE_LAYERS & set(registry) if registry[kind].to_onnx is not Layer.to_onnx}
    assert exported - {layer_of(record).type for record in RECORDS} <= without_record
    assert len(exported) > 35


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.parent.name}-{record.stem}")
def test_onnx_runtime_gives_what_caffe_gave(record: Path, tmp_path: Path) -> None:
    """By one of the opsets, drawn by the record's name; the slow test takes all."""
    check(record, OPSETS[zlib.crc32(record.stem.encode()) % len(OPSETS)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.parent.name}-{record.stem}")
def test_onnx_runtime_gives_what_caffe_gave_by_every_opset(record: Path, tmp_path: Path) -> None:
    for opset in OPSETS:
        check(record, opset, tmp_path, fold=False)


@pytest.mark.parametrize(
    "name", ["lstm", "rnn", "embed", "filter", "batch_reindex", "argmax", "mvn", "spp_max", "crop"]
)
def test_what_is_imported_again_gives_what_caffe_gave(name: str, tmp_path: Path) -> None:
    """Some records; the slow test takes all."""
    check_back(GOLDEN / f"layers/{name}.npz", OPSETS[zlib.crc32(name.encode()) % len(OPSETS)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.parent.name}-{record.stem}")
def test_every_layer_is_imported_again(record: Path, tmp_path: Path) -> None:
    for opset in OPSETS:
        check_back(record, opset, tmp_path)
