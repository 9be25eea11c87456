"""Figures 3, 4, 6, 7 and 8: the cells they share with the tables, and curves that are those of the metrics files."""

import json
from pathlib import Path

import pytest

from imae.experiments.cell import About, Cell, Result
from imae.experiments.curves import FIGURES, Curve, _T_style, cells_by_T, read_curve, write_figure
from imae.experiments.paper import SCHEDULES, T_GRID
from imae.experiments.sweep import Sweep
from imae.experiments.sweep_page import Outcome
from imae.experiments.tables import select_cells
from imae.prototxt_like.errors import InputError

VERSIONS = {"python": "3", "imae": "1", "torch": "2", "numpy": "2"}


def trained(sweep: Sweep, cell: Cell, final: float) -> Result:
    """A result as if the cell had been trained, and its metrics."""
    records = [{"iteration": 0, "phase": "test", "accuracy": 0.1}, {"iteration": 5, "phase": "train", "loss": 2.0}]
    for iteration in (10, 20):
        measured = {"test": {"accuracy": final}, "training set": {"corrupted": final / 2, "intact": final / 4}}
        records += [{"iteration": iteration, "phase": phase, **values} for phase, values in measured.items()]
    sweep.folder(cell).mkdir(parents=True)
    (sweep.folder(cell) / "cell.metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    about = About(60.0, "device", 1, VERSIONS)
    return Result(cell, [0, 10, 20], [0.1, final, final], final / 2, final / 4, about)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path, tmp_path, SCHEDULES["short"])


def test_a_figure_trains_no_cell_of_the_tables_twice() -> None:
    tables = {cell for number in (1, 2) for cell in select_cells(number, 1)}  # type: ignore[arg-type]
    (intact,) = cells_by_T(6, 1, [0.5])[:1]
    assert {cell.T for cell in cells_by_T(6, 1) if cell.noise == 0} == {0.0, None, 1.0, 2.0, 4.0, 8.0, 16.0}
    assert intact in tables
    assert len({*cells_by_T(7, 1), *cells_by_T(8, 1)} - tables) == 2 * 7 - 2
    assert {*cells_by_T(8, 2)} < {*cells_by_T(6, 2)} == {*cells_by_T(7, 2)}


def test_the_figures_have_the_papers_T_at_the_papers_noise() -> None:
    assert [(cell.noise, cell.T) for cell in cells_by_T(8, 1)] == [(50, 4.0), (50, None), (50, 16.0)]
    assert {(cell.depth, cell.noise) for cell in cells_by_T(7, 1)} == {(20, 0), (20, 50)}
    with pytest.raises(InputError, match=r"--T 0\.5: Figure 8 has no such cell, expected one of 4, 8, 16"):
        cells_by_T(8, 1, [0.5])


def test_a_curve_is_the_metrics_files(sweep: Sweep) -> None:
    cell = Cell(20, 50, "CCE", 1)
    trained(sweep, cell, 0.8)
    assert read_curve(sweep, cell, "accuracy") == ([0, 10, 20], [10.0, 80.0, 80.0])
    assert read_curve(sweep, cell, "corrupted") == ([10, 20], [40.0, 40.0])
    assert read_curve(sweep, cell, "intact") == ([10, 20], [20.0, 20.0])


def test_metrics_that_cannot_be_drawn_are_named(sweep: Sweep) -> None:
    cell = Cell(20, 50, "CCE", 1)
    with pytest.raises(InputError, match=r"cell\.metrics\.jsonl: cannot be read"):
        read_curve(sweep, cell, "accuracy")
    sweep.folder(cell).mkdir(parents=True)
    (sweep.folder(cell) / "cell.metrics.jsonl").write_text('{"iteration": 0, "phase": "test", "accuracy": 0.1}\n')
    with pytest.raises(InputError, match=r'has no record of the phase "training set"'):
        read_curve(sweep, cell, "corrupted")


@pytest.mark.parametrize("number", FIGURES)
def test_a_figure_ends_in_a_page_with_what_it_shows(sweep: Sweep, number: int) -> None:
    if number in (3, 4):
        cells = select_cells(2, 2, depths=[20], losses=["CCE", "IMAE"])
    else:
        cells = cells_by_T(number, 2)  # type: ignore[arg-type]
    results = [trained(sweep, cell, 0.4 if cell.seed == 1 else 0.6) for cell in cells]
    page, markdown = write_figure(number, Outcome(sweep, "short", results, len(cells)))
    share = {"accuracy": 1, "corrupted": 1 / 2, "intact": 1 / 4}[FIGURES[number][0]]
    row = f"| {50 * share:.1f} ± {14.14213562 * share:.1f} |"
    text = markdown.read_text()
    assert text.count(row) == len(cells) // 2
    assert f"![{FIGURES[number][1]}" in text and "Settings" in text
    assert "data:image/svg+xml;" in page.read_text()
    assert {path.name for path in sweep.output.glob("figure*")} == {
        f"figure{number}.{suffix}" for suffix in ("html", "md", "png", "svg")
    }


def test_curves_of_several_seeds_are_drawn_as_their_mean(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {}
    monkeypatch.setattr("imae.experiments.curves.draw_panels", lambda panels, **_: drawn.update(panels))
    monkeypatch.setattr("imae.experiments.curves.write_sweep_page", lambda *_, **__: [])
    results = [trained(sweep, Cell(32, 80, "MAE", seed), final) for seed, final in ((1, 0.4), (2, 0.6))]
    write_figure(4, Outcome(sweep, "short", results, 2))
    ((title, (curve,)),) = drawn.items()
    assert (title, curve.label) == ("ResNet-32, 80 % noise", "MAE")
    assert curve.iterations == [0, 10, 20] and curve.percent == pytest.approx([10, 50, 50])


def test_a_panel_shows_the_differences_at_the_end_and_not_the_climb_from_chance(sweep: Sweep) -> None:
    curve = Curve("CCE", [0, 10, 20, 30, 40, 50], [10.0, 70.0, 80.0, 84.0, 82.0, 81.0], {})
    assert curve.after_the_climb == [70.0, 80.0, 84.0, 82.0, 81.0]


def test_each_T_has_a_style_of_its_own() -> None:
    styles = [repr(_T_style(T)) for T in T_GRID]
    assert len({*styles}) == len(T_GRID)
