"""The scripts of docs/pytorch.md run as they stand, where their libraries are installed."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).resolve().parents[3] / "docs" / "pytorch.md"


def run(heading: str) -> dict[str, Any]:
    """The names that the script below a heading leaves."""
    found = re.search(rf"^## {heading}\n.*?```python\n(.*?)```", PAGE.read_text(), re.M | re.S)
    assert found
    names: dict[str, Any] = {"__name__": "script"}
    exec(compile(found[1], f"{PAGE.name}: {heading}", "exec"), names)
    return names


def test_plain_pytorch_withstands_half_of_the_digits_labels(capsys: pytest.CaptureFixture[str]) -> None:
    """As the layer does in `imae demo`, whose net is another."""
    names = run("PyTorch")
    assert names["accuracy"] > 0.8
    assert capsys.readouterr().out == f"test accuracy {names['accuracy']:.3f}\n"


@pytest.mark.filterwarnings("ignore")
def test_lightning() -> None:
    pytest.importorskip("lightning", reason="Lightning is not installed: pip install 'imae[lightning]'")
    before = torch.nn.Linear(64, 10)
    trainer = run("Lightning")["trainer"]
    assert trainer.global_step == 4 and trainer.model.model.weight.shape == before.weight.shape


@pytest.mark.filterwarnings("ignore")
def test_hugging_face() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: pip install 'imae[transformers]'")
    trainer = run("Hugging Face")["trainer"]
    assert trainer.state.global_step == 8
