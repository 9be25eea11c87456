"""The pages of Tables 1 and 2: means over seeds, the paper's values beside them, the order, one file with all in it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from imae.experiments.cell import About, Cell, Result
from imae.experiments.paper import LOSSES, SCHEDULES, TABLE_1, TABLE_2
from imae.experiments.sweep import Sweep
from imae.experiments.sweep_page import Outcome
from imae.experiments.tables import orderings, rows_of, select_cells, table_of, write_report
from imae.prototxt_like.errors import InputError

VERSIONS = {"python": "3", "imae": "1", "torch": "2", "numpy": "2"}


def result(noise: int, loss: str, final: float, seed: int = 1) -> Result:
    about = About(3600.0, "a <device>", 1, VERSIONS)
    return Result(Cell(20, noise, loss, seed), [0, 10, 20], [0.1, 0.9, final], 0.5, 0.6, about)


def test_a_row_has_mean_and_standard_deviation_over_seeds_and_the_papers_value() -> None:
    (row,) = rows_of([result(50, "CCE", final, seed) for seed, final in enumerate((0.6, 0.7, 0.8), 1)])
    # The standard deviation is that of a sample.
    assert row.cells(["best", "final"])[3:7] == ["90.0 ± 0.0", "79.7", "70.0 ± 10.0", "69.5"]
    (gce,) = rows_of([result(50, "GCE", 0.7)])
    assert gce.cells(["final"])[3:6] == ["90.0", "70.0", ""]


def test_the_papers_value_has_a_column_of_its_own_where_it_prints_one() -> None:
    measured = ["test, best", "test, final", "training, corrupted labels", "training, intact labels"]
    table = table_of(rows_of([result(50, "CCE", 0.7), result(50, "GCE", 0.7)]))
    assert table.header == ["net", "noise, %", "loss", *(name for each in measured for name in (each, "paper"))]
    assert table.rows[0] == ["ResNet-20", "50", "CCE", "90.0", "79.7", "70.0", "69.5", "50.0", "62.4", "60.0", "74.0"]
    assert table.rows[1] == ["ResNet-20", "50", "GCE", "90.0", "", "70.0", "", "50.0", "", "60.0", ""]
    intact = table_of(rows_of([result(0, "MAE", 0.7)]))
    assert intact.header == ["net", "noise, %", "loss", *measured[:2], "paper", *measured[2:]]
    assert intact.rows == [["ResNet-20", "0", "MAE", "90.0", "70.0", "89.9", "50.0", "60.0"]]


@pytest.mark.parametrize(("mae", "verdict", "same"), [(0.75, "the same order", 1), (0.65, "another order", 0)])
def test_the_order_of_the_losses_is_told_whether_or_not_it_is_the_papers(mae: float, verdict: str, same: int) -> None:
    results = [result(50, "CCE", 0.7), result(50, "MAE", mae), result(50, "GCE", 0.85), result(50, "IMAE", 0.8)]
    summary, (line,) = orderings(rows_of(results))
    assert f"in {same} of 1 cases" in summary
    order = "MAE 75.0 > CCE 70.0" if same else "CCE 70.0 > MAE 65.0"
    assert line == (
        f"ResNet-20, 50 % noise: GCE 85.0 > IMAE 80.0 > {order}; the paper: IMAE 80.9 > MAE 75.3 > CCE 69.5; {verdict}"
    )


def test_the_paper_prints_no_two_finals_alike() -> None:
    """The order of a net and noise is strict, which `orderings` relies on."""
    for depth, noise in {key[:2] for key in TABLE_2}:
        assert len({TABLE_2[depth, noise, loss][1] for loss in ("CCE", "MAE", "IMAE")}) == 3
    for depth in {key[0] for key in TABLE_1}:
        assert len({TABLE_1[depth, loss] for loss in ("CCE", "MAE", "IMAE")}) == 3


def test_the_tables_have_the_papers_cells() -> None:
    assert {(cell.depth, cell.loss) for cell in select_cells(1, 2)} == {(d, x) for d in (20, 32, 56) for x in LOSSES}
    assert {(cell.depth, cell.noise, cell.loss) for cell in select_cells(2, 1)} >= set(TABLE_2)
    assert len(select_cells(2, 3)) == 2 * 3 * 4 * 3
    assert select_cells(2, 1, depths=[32], noises=[80], losses=["imae"]) == [Cell(32, 80, "IMAE", 1)]
    with pytest.raises(InputError, match="--noise 40: Table 2 has no such cell, expected one of 20, 50, 80"):
        select_cells(2, 1, noises=[40])


def test_the_page_needs_no_other_file_and_says_how_it_was_made(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, tmp_path, SCHEDULES["short"])
    (tmp_path / "commands.txt").write_text("imae reproduce table2 --data a&b\n")
    results = [result(50, loss, final, seed) for loss, final in (("CCE", 0.7), ("IMAE", 0.8)) for seed in (1, 2)]
    page, markdown = write_report(2, Outcome(sweep, "short", results, 4))
    text = page.read_text()
    assert re.findall(r'(?:src|srcset|href)="(.{19})', text) == ["data:image/svg+xml;"] * 2
    assert "<span>a&amp;b</span>" in text and "a &lt;device&gt;" in text
    for expected in (
        "80.0 ± 0.0",
        "80.9",
        "6,400 iterations of 128 images on the first 5,000 training images",
        "divided by 10 at 3,200 and 4,800",
        "Seeds: 1, 2",
        "Wall time: 4.00 hours over 4 cells",
        "mean ± standard deviation over 2 seeds",
        "python 3, imae 1, torch 2, numpy 2",
        "1 of 1 cases",
    ):
        assert expected in text and expected in markdown.read_text()
    assert "Not finished" not in text
    assert re.search(r"<li>Written on 20\d\d-\d\d-\d\d</li>", text)
    assert "![Test accuracy" in markdown.read_text() and (tmp_path / "table2_test_accuracy.png").exists()


def test_a_page_of_a_sweep_that_goes_on_says_so(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, tmp_path, SCHEDULES["short"])
    pages = write_report(2, Outcome(sweep, "short", [result(50, "CCE", 0.7)], 4))
    for page in pages:
        text = page.read_text()
        assert "Not finished: this page tells of 1 of 4 cells." in text and "Too few losses were trained" in text


def test_a_sweeps_pages_are_listed_and_linked(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, tmp_path, SCHEDULES["short"])
    for number, noise in ((1, 0), (2, 50)):
        write_report(number, Outcome(sweep, "short", [result(noise, "CCE", 0.7)], 1))  # type: ignore[arg-type]
    assert '<a href="table2.html">Table 2</a>' in (tmp_path / "table1.html").read_text()
    assert '<a href="table1.html">Table 1</a>' in (tmp_path / "table2.html").read_text()
    assert "- [Table 1: CIFAR-10, intact labels](table1.md)" in (tmp_path / "index.md").read_text()


def test_the_command_ends_with_the_page_of_the_cells_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from imae.cli import main

    asked: list[Sweep] = []

    def trained(sweep: Sweep, cells: list[Cell], *, command: str, **_: object) -> list[Result]:
        asked.append(sweep)
        sweep.output.mkdir()
        (sweep.output / "commands.txt").write_text(command)
        return [result(cell.noise, cell.loss, 0.8, cell.seed) for cell in cells]

    monkeypatch.setattr("imae.experiments.sweep.run_sweep", trained)
    options = ["--net=20", "--noise=50", "--loss=imae", "--schedule=short", "--iterations=128", "--seeds=2", "--cpu"]
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "table2", "--data", "data", "--output", str(tmp_path / "out"), *options])
    assert not ended.value.code
    (sweep,) = asked
    assert (sweep.schedule.iterations, sweep.schedule.subset, sweep.schedule.test_interval) == (128, 5000, 2)
    text = (tmp_path / "out" / "table2.md").read_text()
    assert "| 80.0 ± 0.0 | 80.9 |" in text and "Schedule: short, changed" in text
    assert "--iterations 128 --net 20 --noise 50 --loss imae" in text
    assert str(tmp_path / "out" / "table2.md") in capsys.readouterr().out


def test_a_stopped_command_leaves_the_page_of_what_is_done_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from imae.cli import main

    def interrupted(*_: object, so_far: Callable[[list[Result]], object], **__: object) -> None:
        so_far([result(0, "CCE", 0.7)])
        raise KeyboardInterrupt

    monkeypatch.setattr("imae.experiments.sweep.run_sweep", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "table1", "--data", "data", "--output", str(tmp_path), "--cpu", "--loss", "CCE"])
    assert ended.value.code == 130
    command = f"imae reproduce table1 --data data --schedule paper --output {tmp_path} --cpu --loss CCE"
    assert capsys.readouterr().out == f"Stopped with 0 of 3 cells done. Go on with: {command}\n"
    assert "this page tells of 1 of 3 cells" in (tmp_path / "table1.md").read_text()
