"""Turns, medians, memory, tables, and the figures in the README."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.__main__ import BEGIN, END, write_figures
from benchmarks.measuring import Side, Turns, Unavailable, describe, median_ratio, take_turns


def noting(name: str, calls: list[str]) -> Callable[[], None]:
    return lambda: calls.append(name)


def test_sides_take_turns_and_warm_up_does_not_count() -> None:
    calls: list[str] = []
    turns = take_turns({name: Side(noting, (name, calls)) for name in "ab"}, 2, label="", warm_up=1)
    assert calls == ["a", "b"] * 3
    assert [len(turns[name].seconds) for name in "ab"] == [2, 2]


def unavailable() -> Callable[[], None]:
    raise Unavailable("not on this machine")


def test_a_side_that_cannot_run_says_why_and_the_others_go_on() -> None:
    sides = {"a": Side(unavailable), "b": Side(unavailable, process=True), "c": Side(noting, ("c", []))}
    turns = take_turns(sides, 1, label="")
    assert turns["a"].missing == turns["b"].missing == "not on this machine"
    assert turns["a"].ms is None and len(turns["c"].seconds) == 1


def holding(mib: int) -> Callable[[], None]:
    return lambda: bytearray(mib * 2**20).find(1)  # reads it, so that each page is there


def test_memory_is_the_peak_beyond_the_small_instance() -> None:
    """The 80 MiB of the small instance were given back, and are not what the 40 MiB are counted from."""
    turns = take_turns({"a": Side(holding, (40,), process=True, small=(80,))}, 1, label="")
    assert turns["a"].mib == pytest.approx(40, abs=4)


def test_ratios_are_taken_turn_by_turn() -> None:
    """A disturbance that slows one turn of both threefold leaves the ratio as it is."""
    assert median_ratio(Turns([1.0, 3.0, 1.0]), Turns([2.0, 6.0, 2.0])) == 0.5
    assert median_ratio(Turns([1.0]), Turns([])) is None


@pytest.mark.parametrize(
    ("value", "cell"),
    [(None, "-"), ("ResNet-20", "ResNet-20"), (128, "128"), (1234.5, "1,234"), (0.8512, "0.851"), (12.0, "12")],
)
def test_cells_have_three_digits(value: str | float | None, cell: str) -> None:
    assert describe(value) == cell


def test_the_readme_gets_a_table_for_each_record_and_keeps_the_rest(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Before\n\n{BEGIN}\n\nold\n\n{END}\n\nAfter\n")
    record = {
        "benchmark": "startup",
        "title": "Until a command answers",
        "command": "python -m benchmarks.startup",
        "date": "2026-01-02T03:04:05+00:00",
        "machine": {"cpu": "a CPU", "cores": 2, "threads": 2, "memory_gib": 24.0, "load_before": 0.1},
        "versions": {"torch": "2", "python": "3"},
        "columns": {"command": "command", "ms": "ms"},
        "rows": [{"command": "imae --help", "ms": 312.4}],
        "notes": ["A note."],
    }
    results = tmp_path / "results"
    results.mkdir()
    (results / "startup.json").write_text(json.dumps(record))
    (results / "floor.json").write_text(json.dumps(record | {"title": "First"}))
    for _ in range(2):  # again leaves it as it is
        write_figures(readme, results)
        text = readme.read_text()
        assert text.startswith(
            f"# Before\n\n{BEGIN}\n\n### First\n\n| command | ms |\n| --- | ---: |\n| imae --help | 312 |"
        )
        assert text.index("### First") < text.index("### Until")
        assert text.count("A note.") == 2 and "old" not in text
        assert text.endswith(f"{END}\n\nAfter\n")
