"""The demo's picture shows how the losses differ."""

from typing import Any

import pytest

from imae.experiments import demo
from imae.experiments.demo import Result
from imae.experiments.paper import LOSSES
from imae.experiments.training_accuracy import TrainingAccuracy
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
    results = [Result(loss, [0, 100, 200], [0.1, 0.6 + i / 10, 0.7], training) for i, loss in enumerate(LOSSES)]
    demo._draw(results, pictures.SMALL)
    (axes,) = drawn
    low, high = axes.get_ylim()
    assert 55 < low < 60 and 90 < high < 95
    assert [line.get_label() for line in axes.get_lines()] == list(LOSSES)
