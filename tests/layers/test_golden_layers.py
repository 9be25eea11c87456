"""Every layer computes what Caffe 1.0 computed: the records in tests/golden, layers/ by hand and random/ by chance."""

from pathlib import Path

import numpy as np
import pytest
import torch
from layer_cases import DEVICES

from imae.nets.net import Net
from imae.prototxt_like.schema import TEST, TRAIN
from imae.prototxt_like.text import parse_net

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
RECORDS = [record for folder in ("layers", "random") for record in sorted((GOLDEN / folder).glob("*.npz"))]


def assert_close(actual: torch.Tensor, expected: np.ndarray, what: str) -> None:
    """Agree to rtol 1e-4, with atol 1e-5 of the array's largest magnitude."""
    largest = float(np.abs(expected).max()) if expected.size else 0.0
    np.testing.assert_allclose(
        actual.cpu().numpy().reshape(expected.shape), expected, 1e-4, 1e-5 * largest, err_msg=what
    )


def test_there_are_records() -> None:
    assert len(RECORDS) >= 66 + 239


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.parent.name}/{record.stem}")
def test_layer_gives_what_caffe_gave(record: Path, device: str) -> None:
    golden = np.load(record)
    net = Net(parse_net(str(golden["prototxt"])), TRAIN if golden["phase"] == "TRAIN" else TEST, device=device)
    step = next(step for step in net.steps if step.layer.name == "layer")
    blobs = step.layer.blobs
    for k, blob in enumerate(blobs):
        blob.data.copy_(torch.from_numpy(golden[f"param_{k}"]))
    net.forward(**{name: golden[f"bottom_{i}"] for i, name in enumerate(net.inputs)})
    for i, name in enumerate(step.layer.param.top):
        assert_close(net.blobs[name], golden[f"top_{i}"], f"top {i}")
    for k, blob in enumerate(blobs):
        if f"param_after_{k}" in golden:
            assert_close(blob.data, golden[f"param_after_{k}"], f"blob {k} after forward")
    if not step.layer.is_loss:
        if "top_diff_0" not in golden:
            return
        net.backward({name: torch.from_numpy(golden[f"top_diff_{i}"]) for i, name in enumerate(step.layer.param.top)})
    else:
        net.backward()
    for i, value in enumerate(step.bottoms):
        if f"bottom_diff_{i}" in golden and i not in step.layer.no_gradient_to:
            assert_close(net.diffs[net.names[value]], golden[f"bottom_diff_{i}"], f"gradient of bottom {i}")
    for k, blob in enumerate(blobs):
        if f"param_diff_{k}" in golden and blob.lr_mult:
            assert_close(blob.diff, golden[f"param_diff_{k}"], f"gradient of blob {k}")
