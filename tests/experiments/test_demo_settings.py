"""The demo's settings are picked by what nets say of noisy labels that they were not trained on."""

import pytest

from imae.experiments import demo_settings
from imae.experiments.demo_settings import Schedule
from imae.layers.data.image_set import ImageSetData
from imae.solvers.solver import Solver


def test_what_is_held_out_is_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    step = Solver.step

    def watched(solver: Solver, count: int) -> None:
        data = solver.net.steps[0].layer
        assert isinstance(data, ImageSetData)
        trained.append(data.num_images)
        step(solver, count)

    monkeypatch.setattr(Solver, "step", watched)
    accuracy = demo_settings.held_out_accuracy("cce", Schedule(2, 0.1), 1)
    assert trained == [1297 - 297] and accuracy * 297 == pytest.approx(round(accuracy * 297), abs=1e-3)


def test_the_best_schedule_over_all_losses_is_picked_then_the_best_parameters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def accuracy(loss: str, schedule: Schedule, seed: int, **settings: float) -> float:
        if loss == "cce":
            return 0.4 - schedule.base_lr / 10
        return schedule.base_lr + schedule.iterations / 1000 + (settings.get("T") == 4) / 10 + settings.get("q", 0) / 10

    monkeypatch.setattr(demo_settings, "held_out_accuracy", accuracy)
    demo_settings.main((1, 2))
    picked = [line for line in capsys.readouterr().out.splitlines() if line.startswith("picked")]
    assert picked == ["picked: Schedule(iterations=400, base_lr=0.1)", "picked: T = 4", "picked: q = 0.9"]
