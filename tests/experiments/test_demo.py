"""What the demo writes, that its picture shows how the losses differ, and that what it says holds."""

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from imae.experiments import demo
from imae.experiments.demo import Result
from imae.experiments.paper import LOSSES
from imae.experiments.training_accuracy import TrainingAccuracy
from imae.nets.paper import digits_solver
from imae.reports import pictures


def test_the_picture_spends_its_height_on_the_losses_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on the climb from chance, in the first fifth of the iterations."""
    drawn: list[Any] = []
    new_figure = pictures.new_figure

    def keep(**options: Any) -> Any:
        figure, axes = new_figure(**options)
        drawn.extend(axes)
        return figure, axes

    monkeypatch.setattr(pictures, "new_figure", keep)
    training = TrainingAccuracy(0.5, 0.5)
    results = [
        Result(loss, [0, 100, 200], [0.1, 0.6 + i / 10, 0.7], training, 554, 500, 450) for i, loss in enumerate(LOSSES)
    ]
    demo._draw(results, pictures.SMALL)
    (axes,) = drawn
    low, high = axes.get_ylim()
    assert 55 < low < 60 and 90 < high < 95
    assert [line.get_label() for line in axes.get_lines()] == list(LOSSES)


def test_it_ends_with_which_labels_were_wrong_and_a_picture_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but the pictures themselves and the ONNX model, which have their own tests."""
    monkeypatch.setattr(demo, "digits_solver", partial(digits_solver, 20))
    monkeypatch.setattr(demo, "picture", lambda draw, width: pictures.Picture(b"svg", b"", b"png"))
    monkeypatch.setattr(demo, "_export", lambda solver, path: 0.0)
    console = Console(file=io.StringIO(), width=1000)
    results = demo.run(tmp_path, 1, console)
    assert [result.loss for result in results] == list(LOSSES)
    assert all(result.suspects == 554 and 0 < result.corrected <= result.found < 554 for result in results)
    said = console.file.getvalue()
    found = ", ".join(f"{result.loss} {result.found}" for result in results)
    line = f"of the 554 that each net finds least probable, so many really are: {found}; "
    page = (tmp_path / "results.md").read_text()
    assert line in said and line in page
    for name in ("test_accuracy.png", "suspects.png"):
        assert f"![]({name})" in page and (tmp_path / name).read_bytes() == b"png"
        assert str(tmp_path / name) in said
    assert [row["found"] for row in json.loads((tmp_path / "results.json").read_text())] == [r.found for r in results]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", range(1, 6))
def test_what_the_readme_says_of_it_holds_for_other_seeds_and_threads(tmp_path: Path, seed: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        results = demo.run(tmp_path, seed, Console(file=io.StringIO()))
    finally:
        torch.set_num_threads(before)
    final, found = ({r.loss: value(r) for r in results} for value in (lambda r: r.final, lambda r: r.found))
    assert final["MAE"] < final["CCE"] < final["IMAE"] and final["CCE"] < final["GCE"]
    assert found["MAE"] < found["CCE"] < found["IMAE"] and found["CCE"] < found["GCE"]
    assert found["IMAE"] > 0.95 * 554
