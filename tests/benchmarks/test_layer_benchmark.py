"""The benchmark of the layers: each type has its rows, and both sides of a row compute the same."""

import json
from pathlib import Path

import pytest

from benchmarks import layers
from benchmarks.layer_cases import CASES, ELSEWHERE
from imae.layers.registry import registry


def test_each_layer_has_a_row_or_a_reason() -> None:
    timed = {case.type for case in CASES}
    assert timed | set(ELSEWHERE) == set(registry)
    assert not timed & set(ELSEWHERE)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.type} {case.settings}")
def test_a_layer_and_its_counterpart_compute_the_same(case: layers.Case) -> None:
    layers.Pair(case)


def test_rows_have_both_sides_times(tmp_path: Path) -> None:
    """Accuracy has no gradient."""
    output = tmp_path / "layers.json"
    arguments = ["Flatten", "ContrastiveLoss", "Accuracy", "--seconds", "0", "--output", str(output)]
    layers.BENCHMARK.main(layers.__doc__, arguments)
    record = json.loads(output.read_text())
    assert {row["type"] for row in record["rows"]} == {"Flatten", "ContrastiveLoss", "Accuracy"}
    for row in record["rows"]:
        assert row["ours_forward"] > 0 and row["their_forward"] > 0 and row["ratio"] > 0
        assert ("ours_backward" in row) == (row["type"] != "Accuracy")


def test_a_counterpart_that_computes_something_else_is_found() -> None:
    (case,) = (case for case in CASES if case.type == "TanH")
    with pytest.raises(AssertionError, match=r"^TanH forward: "):
        layers.Pair(layers.Case("TanH", "", case.bottoms, lambda x: x.sin()))


def test_an_unknown_type_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^benchmarks.layers: error: no rows of Flat$"):
        layers.BENCHMARK.main(None, ["Flat", "--output", str(tmp_path / "layers.json")])
