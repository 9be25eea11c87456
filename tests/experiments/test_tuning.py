"""Choosing T and q: what each kind of held-out labels picks, and what that costs on the test set."""

from dataclasses import replace
from pathlib import Path

import pytest

from imae.experiments.cell import About, Cell, Result
from imae.experiments.paper import SCHEDULES, T_GRID
from imae.experiments.sweep import Sweep
from imae.experiments.sweep_page import Outcome
from imae.experiments.tuning import Q_GRID, candidates_of, picks, tuning_cells, write_tuning
from imae.prototxt_like.errors import InputError

VERSIONS = {"python": "3", "imae": "1", "torch": "2", "numpy": "2"}
CELL = Cell(20, 50, "IMAE", 1, held_out=5000)


def result(cell: Cell, noisy: float, intact: float, test: float) -> Result:
    about = About(60.0, "device", 1, VERSIONS)
    return Result(cell, [0, 10], [0.1, test], 0.5, 0.6, about, noisy, intact)


def grid() -> list[Result]:
    """Noisy labels pick T = 4 and their own 8; by the test set 8 is best. Both pick q = 0.7."""
    return [
        result(replace(CELL, T=4.0), 0.45, 0.70, 0.69),
        result(replace(CELL, T=8.0), 0.44, 0.80, 0.79),
        result(replace(CELL, T=16.0), 0.43, 0.75, 0.74),
        result(replace(CELL, loss="GCE", q=0.7), 0.42, 0.72, 0.71),
        result(replace(CELL, loss="GCE", q=0.9), 0.40, 0.60, 0.61),
    ]


def test_each_kind_of_labels_picks_its_best_and_the_cost_is_that_to_the_best_of_the_grid() -> None:
    found = [(pick.labels, pick.candidate.name, round(pick.cost, 6)) for pick in picks(candidates_of(grid()))]
    assert found == [
        ("noisy labels", "IMAE, T = 4", 10.0),
        ("own labels", "IMAE, T = 8", 0.0),
        ("noisy labels", "GCE, q = 0.7", 0.0),
        ("own labels", "GCE, q = 0.7", 0.0),
    ]


def test_the_pick_is_by_the_mean_over_seeds_and_of_equals_the_first() -> None:
    seeds = [result(replace(CELL, T=T, seed=seed), x, x, x) for T, seed, x in ((4.0, 1, 0.9), (4.0, 2, 0.5))]
    seeds += [result(replace(CELL, T=8.0, seed=seed), 0.7, 0.7, 0.8) for seed in (1, 2)]
    noisy, own = picks(candidates_of(seeds))
    assert noisy.candidate.value == own.candidate.value == 4.0
    assert noisy.cost == pytest.approx(10)


def test_the_grid_is_the_papers_T_and_several_q() -> None:
    cells = tuning_cells(depth=20, noise=50, labels="", held_out=100, seeds=2)
    assert [cell.T for cell in cells if cell.loss == "IMAE" and cell.seed == 1] == [*T_GRID]
    assert [cell.q for cell in cells if cell.loss == "GCE" and cell.seed == 2] == [*Q_GRID]
    assert {cell.held_out for cell in cells} == {100} and len({cell.name for cell in cells}) == len(cells)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"depth": 21}, "--net 21: tune-t has no such cell, expected one of 20, 32, 56"),
        ({"noise": 30}, "--noise 30: tune-t has no such cell, expected one of 0, 20, 50, 80"),
        ({"T": [-1.0]}, "--T -1: expected a finite number of at least 0"),
        ({"T": [float("nan")]}, "--T nan: expected a finite number of at least 0"),
        ({"q": [0.0]}, "--q 0: expected 0 < q <= 1"),
    ],
)
def test_a_grid_that_cannot_be_trained_is_refused(changed: dict[str, object], message: str) -> None:
    asked = {"depth": 20, "noise": 50, "labels": "", "held_out": 1, "seeds": 1} | changed
    with pytest.raises(InputError, match=f"^{message}"):
        tuning_cells(**asked)  # type: ignore[arg-type]


def test_the_page_tells_picks_costs_and_how_sure_they_are(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, tmp_path, SCHEDULES["paper"])
    page, markdown = write_tuning(Outcome(sweep, "paper", grid(), 5))
    text = markdown.read_text()
    for expected in (
        "By the noisy labels of the images held out: IMAE, T = 4, test accuracy 69.0 %, 10.0 points below the best",
        "By the own labels of the images held out: IMAE, T = 8, test accuracy 79.0 %, the best of the grid",
        "| IMAE, T = 16 | 43.0 | 75.0 | 74.0 |",
        "standard error of up to 0.7 points",
        "ResNet-20, 50 % noise; the last 5,000 training images are held out",
        "on all training images but the last 5,000",
        "labels are replaced by a class at random, perhaps the same: at 50 % about 45 % are wrong",
    ):
        assert expected in text
        assert expected in page.read_text() or "|" in expected
    assert {path.name for path in tmp_path.iterdir()} == {
        f"tuning_resnet20_noise50.{suffix}" for suffix in ("html", "md", "png", "svg")
    }


@pytest.mark.parametrize(
    ("cell", "kinds"),
    [
        (replace(CELL, noise=0), ["own labels"]),
        (replace(CELL, noise=0, labels="mine.txt"), ["given labels", "own labels"]),
    ],
)
def test_labels_of_which_nothing_is_known_are_not_called_intact(tmp_path: Path, cell: Cell, kinds: list[str]) -> None:
    results = [replace(each, cell=replace(each.cell, noise=0, labels=cell.labels)) for each in grid()]
    assert [pick.labels for pick in picks(candidates_of(results))] == 2 * kinds
    pages = write_tuning(Outcome(Sweep(tmp_path, tmp_path, SCHEDULES["paper"]), "paper", results, 5))
    for page in pages:
        text = page.read_text()
        assert "intact" not in text and all(f"held out, {kind}" in text for kind in kinds)
