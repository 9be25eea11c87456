"""The comparison on a GPU, as far as a machine without one can tell."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_train
from benchmarks.gpu_train import BENCHMARK

TINY = ["--depth", "8", "--batch", "4", "--images", "20", "--iterations", "2", "--rounds", "1", "--workers", "0"]


def test_every_side_runs_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_train, "CHECKED", 1)
    output = tmp_path / "gpu_train.json"
    BENCHMARK.main("", [*TINY, "--cpu", "--no-compile", "--precision", "fp32", "--output", str(output)])
    record = json.loads(output.read_text())
    assert [row["what"] for row in record["rows"]] == ["loop: DataLoader, eager", "step: PyTorch eager"]
    for row in record["rows"]:
        assert row["ours_ms"] > 0
        assert row["speedup"] == pytest.approx(row["theirs_ms"] / row["ours_ms"])
    assert record["notes"][1] == "Captured and eager: the same bits."


def test_without_a_gpu_it_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        BENCHMARK.main("", TINY)
    assert str(ended.value).startswith("benchmarks.gpu_train: this machine has no GPU")
    assert "\n" not in str(ended.value)
