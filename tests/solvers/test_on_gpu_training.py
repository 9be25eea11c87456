"""Where there is a GPU: training captured as CUDA graphs gives the bits of training without, and resumes with them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_capture import EXAMPLES, SCHEDULE, assert_same, digits_param, resnet20

from imae.solvers.log import read_metrics
from imae.solvers.solver import Solver
from imae.solvers.update import UPDATES

if not torch.cuda.is_available():
    pytest.skip("there is no GPU", allow_module_level=True)


@pytest.mark.parametrize("loss", ["cce", "mae", "gce", "imae"])
@pytest.mark.parametrize("settings", ["", "iter_size: 2 clip_gradients: 0.5", *(f'type: "{rule}"' for rule in UPDATES)])
def test_captured_training_has_the_bits_of_training_that_is_not(tmp_path: Path, loss: str, settings: str) -> None:
    """Over changes of the rate, tests, displays, snapshots and epochs; and what it resumes has them, too."""
    if any(rule in settings for rule in ("AdaGrad", "RMSProp")):
        settings += " momentum: 0"
    plain, captured = (
        Solver(digits_param(tmp_path / f"run{capture}", loss, SCHEDULE + settings), device="cuda", capture=capture)
        for capture in (False, True)
    )
    assert captured.training.recorded
    plain.solve()
    captured.solve()
    assert_same(plain, captured)
    assert read_metrics(tmp_path / "runTrue.metrics.jsonl") == read_metrics(tmp_path / "runFalse.metrics.jsonl")
    resumed = Solver(digits_param(tmp_path / "again", loss, SCHEDULE + settings), device="cuda")
    resumed.solve(tmp_path / "runTrue_iter_8.solverstate")
    assert_same(plain, resumed)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_resnet20_with_its_augmentation(tmp_path: Path, precision: str) -> None:
    options = {"dtype": torch.bfloat16 if precision == "bf16" else torch.float32, "tf32": precision == "tf32"}
    param = resnet20(tmp_path)
    plain, captured = (Solver(param, device="cuda", capture=capture, **options) for capture in (False, True))
    plain.solve()
    captured.solve()
    assert_same(plain, captured)


def test_a_gpu_trains_as_the_cpu_does(tmp_path: Path) -> None:
    """In float64, with dropped and augmented data that are the same on both."""
    param = resnet20(tmp_path)
    here, there = (Solver(param, device=device, dtype=torch.float64) for device in ("cpu", "cuda"))
    here.solve()
    there.solve()
    torch.testing.assert_close(there.net.storage.data.cpu(), here.net.storage.data, rtol=1e-8, atol=1e-8)


def test_train_on_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "imae", "train", "--solver", str(EXAMPLES / "digits" / "imae_solver.prototxt")]
    prefix = tmp_path / "digits"
    done = subprocess.run(
        [*command, "--gpu", "0", "--iterations", "60", "--prefix", str(prefix)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "GPU 0, " in done.stdout + done.stderr
    assert "Not captured" not in done.stdout + done.stderr
    assert len(read_metrics(tmp_path / "digits.metrics.jsonl"))
