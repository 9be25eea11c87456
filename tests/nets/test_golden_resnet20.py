"""The real ResNet-20 gives what Caffe 1.0 gave: every blob of the TEST phase, and six SGD steps."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from layer_cases import DEVICES

from imae.nets.net import Net
from imae.prototxt_like.schema import TEST, TRAIN, SolverParameter
from imae.prototxt_like.text import parse_net
from imae.solvers.solver import Solver

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "nets" / "resnet20.npz"
SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
WEIGHTS = SHARED / "resnet20" / "cifar10_res20_iter_64000.caffemodel"

pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason="the real weights are not at ../shared/data/resnet20")


@pytest.mark.parametrize("device", DEVICES)
def test_every_blob_of_the_test_phase(device: str) -> None:
    golden = np.load(GOLDEN)
    net = Net(parse_net(str(golden["test_net"])), TEST, backward=False, device=device)
    report = net.copy_weights(WEIGHTS)
    assert len(report.copied) == 64 and not report.kept and not report.unused
    net.forward(Data1=golden["test_data"], Data2=golden["test_label"])
    compared = 0
    for key in golden.files:
        if not key.startswith("test_blob_") or key.removeprefix("test_blob_") not in net.blobs:
            continue
        expected, actual = golden[key], net.blobs[key.removeprefix("test_blob_")].cpu().numpy()
        np.testing.assert_allclose(actual.reshape(expected.shape), expected, 1e-3, 1e-3 * np.abs(expected).max())
        compared += 1
    assert compared >= 30
    np.testing.assert_allclose(net.blobs["InnerProduct1"].cpu(), golden["test_blob_InnerProduct1"], 1e-3, 1e-3)
    assert float(net.blobs["SoftmaxWithLoss1"]) == pytest.approx(float(golden["test_blob_SoftmaxWithLoss1"]), rel=5e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_six_sgd_steps_of_the_train_phase(device: str, cifar10_part: Path, tmp_path: Path) -> None:
    golden = np.load(GOLDEN)
    batch = pickle.loads((cifar10_part / "cifar-10-batches-py" / "data_batch_1").read_bytes(), encoding="bytes")
    images = np.asarray(batch[b"data"], np.float32).reshape(-1, 3, 32, 32)
    from imae.prototxt_like.binary import read_binaryproto

    mean = read_binaryproto(SHARED / "resnet20" / "mean.binaryproto").reshape(3, 32, 32)
    param = SolverParameter(base_lr=0.01, momentum=0.9, weight_decay=0.0001, lr_policy="fixed", max_iter=6, type="SGD")
    param.net_param.CopyFrom(parse_net(str(golden["train_net"])))
    solver = Solver(param, device=device)
    solver.net.copy_weights(WEIGHTS)
    assert solver.net.context.phase == TRAIN
    for step, expected in enumerate(golden["train_loss"]):
        rows = golden["train_index"][step * 32 : step * 32 + 32]
        solver.net.clear_diffs()
        solver.net.forward(Data1=images[rows] - mean, Data2=golden["train_label"].reshape(6, 32)[step])
        solver.net.backward()
        assert float(solver.net.loss) == pytest.approx(float(expected), rel=5e-3), f"loss of step {step}"
        solver.update.apply(0.01)
    compared = 0
    for key in golden.files:
        if key.startswith("after_"):
            _, layer, k = key.split("_")
            actual = solver.net.params[layer][int(k)].data.cpu().numpy()
            expected = golden[key].reshape(actual.shape)
            np.testing.assert_allclose(actual, expected, 1e-3, 1e-3 * np.abs(expected).max(), err_msg=key)
            compared += 1
    assert compared == 7
    assert torch.isfinite(solver.net.storage.data).all()
