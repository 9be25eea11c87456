"""On the real CIFAR-10: the accuracy of a real Caffe net, and a training run, are those that Caffe 1.0 printed."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from imae.layers.data.convert import convert_cifar10
from imae.solvers.log import read_metrics

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "train"
RESNET20 = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "resnet20"

Imae = Callable[..., Any]


@pytest.fixture(scope="module")
def lmdbs(cifar10_part: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the LMDBs, as `imae convert cifar10` writes them of the first training file, and Caffe's mean."""
    if not RESNET20.exists():
        pytest.skip("the real net is not at ../shared/data/resnet20")
    folder = tmp_path_factory.mktemp("lmdbs")

    def load(root: Path, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        file = root / "cifar-10-batches-py" / ("data_batch_1" if train else "test_batch")
        batch = pickle.loads(file.read_bytes(), encoding="bytes")
        return torch.from_numpy(batch[b"data"]).view(-1, 3, 32, 32), torch.tensor(batch[b"labels"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imae.layers.data.convert.load_cifar10", load)
        convert_cifar10(cifar10_part, folder)
    shutil.copy(RESNET20 / "mean.binaryproto", folder)
    return folder


def test_the_real_resnet20_has_caffes_accuracy_and_loss(imae: Imae, lmdbs: Path) -> None:
    text = (RESNET20 / "res20_cifar_train_test.prototxt").read_text()
    model = lmdbs / "res20_cifar_train_test.prototxt"
    model.write_text(text.replace('"../', f'"{lmdbs}/'))
    weights = RESNET20 / "cifar10_res20_iter_64000.caffemodel"
    result = imae("test", "--model", model, "--weights", weights, "--iterations", 100, "--cpu")
    assert result.status == 0, result.err
    accuracy = float(re.search(r"^.*Accuracy1 = ([\d.]+)$", result.out, re.M)[1])  # type: ignore[index]
    loss = float(re.search(r"SoftmaxWithLoss1 = ([\d.]+)", result.out)[1])  # type: ignore[index]
    assert accuracy == pytest.approx(0.9181, abs=0.0002)
    assert loss == pytest.approx(0.342984, abs=0.0002)


def test_training_shows_caffes_losses_iteration_by_iteration(imae: Imae, lmdbs: Path, tmp_path: Path) -> None:
    for file in GOLDEN.iterdir():
        shutil.copy(file, lmdbs)
    prefix = tmp_path / "golden"
    arguments = ("--solver", lmdbs / "solver.prototxt", "--weights", lmdbs / "init.caffemodel", "--prefix", prefix)
    result = imae("train", *arguments, "--cpu")
    assert result.status == 0, result.err
    expected = json.loads((GOLDEN / "expected.json").read_text())
    records = read_metrics(tmp_path / "golden.metrics.jsonl")
    losses = [(record["iteration"], record["loss"]) for record in records if record["phase"] == "train"]
    assert [iteration for iteration, _ in losses] == [iteration for iteration, _ in expected["train"]]
    for (iteration, loss), (_, caffe) in zip(losses, expected["train"], strict=True):
        assert loss == pytest.approx(caffe, rel=0.01), f"iteration {iteration}"
    tested = [record for record in records if record["phase"].startswith("test")]  # at 0 without statistics
    tests = [(name, record[name]) for record in tested for name in ("accuracy", "loss")]
    assert len(tests) == len(expected["test"])
    for (name, value), (caffe_name, caffe) in zip(tests, expected["test"], strict=True):
        assert name == caffe_name
        assert value == pytest.approx(caffe, abs=0.01 if name == "accuracy" else 0.01 * caffe)
