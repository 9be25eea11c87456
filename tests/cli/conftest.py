"""What the command's tests share: running it in this process, and a net that trains in a fraction of a second."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from imae.cli import main

NET = """
name: "digits"
layer { name: "data" type: "DigitsData" top: "data" top: "label"
  digits_data_param { batch_size: 20 noise_kind: SYMMETRIC noise_rate: 0.2 } transform_param { scale: 0.1 } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 16 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "dropout" type: "Dropout" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" test_iter: 5 test_interval: 25 base_lr: 0.05 momentum: 0.9 weight_decay: 0.001
lr_policy: "step" gamma: 0.5 stepsize: 40 display: 10 average_loss: 3 max_iter: 60 snapshot: 20
snapshot_prefix: "out/digits" random_seed: 7
"""


class Outcome(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Nets this small only lose time by a second thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def imae(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command with these arguments."""

    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Outcome(ended.value.code or 0, out, err)

    return run


@pytest.fixture
def enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Make a folder of this name, with `net.prototxt` and `solver.prototxt`, the working directory."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "net.prototxt").write_text(NET)
        (folder / "solver.prototxt").write_text(SOLVER)
        monkeypatch.chdir(folder)
        return folder

    return make


@pytest.fixture
def digits(enter: Callable[[str], Path]) -> Path:
    """The working directory, with the two files."""
    return enter("digits")
