"""A million samples, in minutes and within 16 GB: of 512 features, read as they are needed, and of 1,000 classes."""

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

JUDGE = """
import resource, torch
from imae.audit.label_issues import Picked, judge
logits = torch.randn(300_000, 500)
label = torch.arange(300_000) % 500
logits[torch.arange(300_000), label] += 9
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
judge(logits, label, [*map(str, range(500))], Picked("IMAE", 8.0, 0.01, 1, 0, 1, 0.8, 0.8, []))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
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


@pytest.mark.slow
def test_what_logits_say_of_labels_takes_no_more_memory_of_many_classes() -> None:
    """Beside the logits, here of 0.6 GB, a constant, and some numbers of each sample."""
    said = subprocess.run([sys.executable, "-c", JUDGE], check=True, stdout=subprocess.PIPE).stdout
    assert int(said) * 1024 < 2**30
