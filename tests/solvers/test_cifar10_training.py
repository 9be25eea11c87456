"""ResNet-20 with IMAE at 50 % noise on the real CIFAR-10: it learns, and a killed run resumes to the same bits."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imae.solvers.log import read_metrics

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "cifar10"
ITERATIONS, SNAPSHOT = 500, 200

pytestmark = pytest.mark.slow


def command(folder: Path, *options: str) -> list[str]:
    solver = folder / "resnet20_imae_noise50_solver.prototxt"
    changes = [f"max_iter={ITERATIONS}", f"snapshot={SNAPSHOT}", "display=10", "test_interval=100"]
    settings = [word for change in changes for word in ("--set", change)]
    return [sys.executable, "-m", "imae", "train", "--solver", str(solver), "--cpu", *settings, *options]


def wait_for_iteration(log: Path, iteration: int) -> None:
    """Wait until the log shows an iteration at or past `iteration`."""
    deadline = time.monotonic() + 1200
    while time.monotonic() < deadline:
        shown = re.findall(r"Iteration (\d+) \(", log.read_text()) if log.exists() else []
        if shown and int(shown[-1]) >= iteration:
            return
        time.sleep(0.2)
    pytest.fail(f"{log} did not reach iteration {iteration}")


def test_it_learns_and_a_killed_run_resumes_to_the_same_bits(cifar10_root: Path, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "cifar10")
    folder = tmp_path / "cifar10"
    (folder / "data").symlink_to(cifar10_root)
    whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
    subprocess.run(command(folder, "--prefix", whole), check=True, cwd=tmp_path, capture_output=True)
    tests = [record for record in read_metrics(f"{whole}.metrics.jsonl") if record["phase"] == "test"]
    print("test accuracy:", ", ".join(f"{record['accuracy']:.4f} at {record['iteration']}" for record in tests))
    assert tests[-1]["iteration"] == ITERATIONS and tests[-1]["accuracy"] > 0.2  # chance is 0.1

    process = subprocess.Popen(command(folder, "--prefix", killed), cwd=tmp_path, stderr=subprocess.DEVNULL)
    wait_for_iteration(Path(f"{killed}.log"), SNAPSHOT + 70)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path(f"{killed}_iter_{ITERATIONS}.caffemodel").exists()
    subprocess.run(command(folder, "--prefix", killed, "--resume"), check=True, cwd=tmp_path, capture_output=True)
    model = f"_iter_{ITERATIONS}.caffemodel"
    assert Path(killed + model).read_bytes() == Path(whole + model).read_bytes()

    def losses(prefix: str) -> list[tuple[int, float]]:
        return [(record["iteration"], record["loss"]) for record in read_metrics(f"{prefix}.metrics.jsonl")]

    assert losses(killed) == losses(whole)
