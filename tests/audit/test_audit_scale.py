"""A million samples of 512 features, read from a file as they are needed, in minutes and within 16 GB."""

import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from imae.audit.result import read_result

SAMPLES, WIDTH, CLASSES = 1_000_000, 512, 20
MINUTES, GIB = 20, 16


@pytest.mark.slow
def test_a_million_samples(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 4 * 2**30:
        pytest.skip("needs 4 GiB of disk")
    draws = np.random.Generator(np.random.SFC64(0))
    centres = 0.35 * draws.standard_normal((CLASSES, WIDTH), np.float32)
    labels = draws.integers(0, CLASSES, SAMPLES)
    table = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float16, (SAMPLES, WIDTH))
    for rows in np.split(np.arange(SAMPLES), 20):
        table[rows] = centres[labels[rows]] + draws.standard_normal((len(rows), WIDTH), np.float32)
    table.flush()
    noisy = np.where(draws.random(SAMPLES) < 0.2, draws.integers(0, CLASSES, SAMPLES), labels)
    np.save(tmp_path / "y.npy", noisy)
    command = [sys.executable, "-m", "imae", "audit", tmp_path / "x.npy", "--label", tmp_path / "y.npy"]
    since = time.perf_counter()
    subprocess.run([*command, "-o", tmp_path / "out"], check=True)
    assert time.perf_counter() - since < 60 * MINUTES
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < GIB * 2**20
    assert roc_auc_score(noisy != labels, read_result(tmp_path / "out")[0].scores["score"]) > 0.99
