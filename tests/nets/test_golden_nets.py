"""Whole nets drawn at random compute what Caffe 1.0 computed, in every plan: tests/golden/nets_random."""

from pathlib import Path

import numpy as np
import pytest
import torch
from layer_cases import DEVICES

from imae.nets.net import Net
from imae.prototxt_like.schema import TRAIN
from imae.prototxt_like.text import parse_net

RECORDS = sorted((Path(__file__).resolve().parents[1] / "golden" / "nets_random").glob("*.npz"))


def assert_close(actual: torch.Tensor, expected: np.ndarray, what: str, rounding: float = 0.0) -> None:
    """Agree to 2e-3 of the largest magnitude, and to `rounding`."""
    assert actual.numel() == expected.size, what
    largest = float(np.abs(expected).max(initial=0.0))
    deviation = np.abs(actual.double().cpu().numpy().reshape(expected.shape) - expected).max(initial=0.0)
    assert deviation <= 2e-3 * largest + rounding, f"{what}: {deviation:g} of {largest:g}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_blobs", [True, False], ids=["all blobs kept", "freed"])
@pytest.mark.parametrize("plan", ["plain", "fused"])
@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_a_net_gives_what_caffe_gave(record: Path, plan: str, keep_blobs: bool, device: str) -> None:
    golden = np.load(record)
    net = Net(parse_net(str(golden["prototxt"])), TRAIN, plan=plan, device=device)
    net.keep_blobs = keep_blobs
    for name, blobs in net.params.items():
        for k, blob in enumerate(blobs):
            blob.data.copy_(torch.from_numpy(golden[f"w_{name}_{k}"]))
    outputs = net.forward(**{name: golden[name] for name in net.inputs})
    net.backward()
    for key in (key for key in golden.files if key.startswith("out_")):
        assert_close(outputs[key.removeprefix("out_")], golden[key], key)
    # What a BatchNorm takes out again, such as a bias before it, has a gradient of nothing but rounding.
    rounding = 1e-6 * max(float(np.abs(golden[key]).max(initial=0.0)) for key in golden.files if key.startswith("g_"))
    for name, blobs in net.params.items():
        for k, blob in enumerate(blobs):
            if f"a_{name}_{k}" in golden.files:
                assert_close(blob.data, golden[f"a_{name}_{k}"], f"blob {k} of {name} after the pass")
            if f"g_{name}_{k}" in golden.files and blob.lr_mult:
                assert_close(blob.diff, golden[f"g_{name}_{k}"], f"gradient of blob {k} of {name}", rounding)
    if keep_blobs:
        assert_close(net.diffs["data"], golden["g_data"], "gradient of the data")


def test_there_are_records() -> None:
    assert len(RECORDS) >= 16
