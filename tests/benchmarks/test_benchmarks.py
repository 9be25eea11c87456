"""Every benchmark runs, at sizes that take seconds, and writes the record that the figures are made from."""

import importlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import imae_resnet, loading, measuring, plan_building, pytorch_resnet
from benchmarks.__main__ import NAMES, ON_A_GPU
from benchmarks.inception_resnet_v2 import inception_resnet_v2
from benchmarks.measuring import ROOT, Unavailable
from imae.nets.net import Net
from imae.prototxt_like.schema import TRAIN

TINY = {
    "floor": ["--depth", "8", "--batch", "2"],
    "inference": ["--nets", "resnet8", "--batch", "1", "3"],
    "data_path": ["--depth", "8", "--batch", "4", "--images", "20"],
    "image_data": ["--images", "4", "--batch", "2", "--size", "300", "260"],
    "loading": ["--blocks", "0", "0", "1", "--records", "20", "--given", "nowhere"],
    "plan_building": ["--blocks", "0", "0", "1", "--batch", "1"],
    "startup": [],
}
SLOW = ("plan_building", "startup")
"""Of these, what takes seconds."""


def run(name: str, arguments: list[str], folder: Path) -> dict[str, Any]:
    """The record that `python -m benchmarks.NAME` writes with one round of `arguments`."""
    module = importlib.import_module(f"benchmarks.{name}")
    output = folder / f"{name}.json"
    module.BENCHMARK.main(module.__doc__, [*arguments, "--rounds", "1", "--output", str(output)])
    record: dict[str, Any] = json.loads(output.read_text())
    return record


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in TINY])
def test_a_benchmark_records_its_figures_and_their_floor(name: str, tmp_path: Path) -> None:
    record = run(name, TINY[name], tmp_path)
    if name == "loading":
        assert record["notes"] == ["Caffe's ResNet-20 is not at nowhere: left out."]
    assert record["benchmark"] == name
    assert record["command"].startswith(f"python -m benchmarks.{name} ")
    assert {"cpu", "cores", "threads", "memory_gib", "system", "load_before"} <= set(record["machine"])
    assert {"python", "imae", "torch"} <= set(record["versions"])
    assert record["rows"]
    for row in record["rows"]:
        assert next(iter(row.values()))
        assert all(value is None or isinstance(value, str) or value >= 0 for value in row.values())
    keys = {key for row in record["rows"] for key in row}
    assert set(record["columns"]) <= keys
    assert any(row.get("floor_ms") or row.get("floor") for row in record["rows"])


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^benchmarks.floor: error: the depth .* must be 6n \+ 2 .*, not 9$"):
        run("floor", ["--depth", "9"], tmp_path)


def test_the_given_net_is_loaded_where_there_is_one() -> None:
    folder = ROOT / loading.GIVEN
    if not folder.exists():
        pytest.skip("Caffe's ResNet-20 is not at ../shared/data/resnet20")
    assert [load() is not None for _, _, load in loading.given(folder)] == [True, True]


def test_training_cost_is_recorded_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which spares seconds, and memory."""
    monkeypatch.setattr(measuring, "_Process", measuring._Here)
    sizes = ["--batches", "2", "4", "--batch", "4", "--depths", "8", "--depth", "8", "--figure", str(tmp_path / "cost")]
    rows = run("cost", sizes, tmp_path)["rows"]
    assert [(row["net"], row["batch"]) for row in rows] == [("ResNet-8", 2), ("ResNet-8", 4)]
    for row in rows:
        assert row["eager_ratio"] == pytest.approx(row["ours_ms"] / row["eager_ms"])
        assert row["floor_ms"] > 0
    assert (tmp_path / "cost.png").stat().st_size and (tmp_path / "cost.svg").stat().st_size


def test_a_busy_machine_is_measured_beside_an_idle_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, where torch is loaded already: the ways to wait do not differ, but all is done."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(measuring, "_Process", measuring._Here)
    monkeypatch.setattr("benchmarks.busy_machine.SETTLING", 0.0)
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    try:
        record = run("busy_machine", ["--depth", "8", "--batch", "2", "--busy", "1"], tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert [row["waiting"] for row in record["rows"]] == [
        "spinning briefly, in short slices",
        "spinning, as OpenMP does",
        "one thread",
    ]
    for row in record["rows"]:
        assert row["times"] == pytest.approx(row["busy_ms"] / row["idle_ms"])


@pytest.mark.slow
def test_training_is_compared_in_processes_whose_memory_is_measured(tmp_path: Path) -> None:
    """Against torch.compile too where there is a compiler, which takes a minute."""
    record = run("train_step", ["--depth", "8", "--batch", "4"], tmp_path)
    (row,) = record["rows"]
    assert row["bf16_floor_ms"] > 0
    assert row["plain_ms"] > 0 and row["bf16_ratio"] == pytest.approx(row["bf16_ms"] / row["ours_ms"])
    assert row["memory_ratio"] == pytest.approx(row["ours_mib"] / row["eager_mib"])
    assert row["ours_mib"] > 1  # batch 4 of ResNet-8 keeps 2 MB of activations
    assert row["convolutions_ratio"] < 1
    assert (row["compiled_ms"] is None) == any("torch.compile" in note for note in record["notes"])


def test_every_benchmark_is_run_by_the_one_command_and_described() -> None:
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "BENCHMARK = " in path.read_text()}
    assert modules == {*NAMES, *ON_A_GPU}
    readme = (ROOT / "benchmarks" / "README.md").read_text()
    assert all(f"`python -m benchmarks.{name}" in readme for name in modules)


def test_both_sides_of_the_comparison_are_the_same_net() -> None:
    """ResNet-20 has 269,722 learnable parameters (DESIGN.md)."""
    model = pytorch_resnet.resnet(20)
    solver = imae_resnet.solver(20, 2)
    ours = sum(blob.data.numel() for blob in solver.net.learnable if blob.lr_mult)
    assert sum(parameter.numel() for parameter in model.parameters()) == ours == 269_722


def test_the_convolutions_alone_are_those_of_the_net(monkeypatch: pytest.MonkeyPatch) -> None:
    iterate = pytorch_resnet.convolutions(8, 2)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        iterate()
    names = [event.name for event in profiled.events()]
    assert names.count("aten::convolution") == names.count("aten::convolution_backward") == 7


def test_torch_compile_that_fails_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(function: object) -> object:
        raise RuntimeError("no C++ compiler\nand much more")

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(Unavailable, match=r"^torch\.compile: no C\+\+ compiler$"):
        pytorch_resnet.compiled(8, 2)


def test_inception_resnet_v2_has_the_shapes_of_its_paper() -> None:
    """Szegedy et al. 2016, Figure 15: 35 x 35 x 384 after the stem, 17 x 17 after reduction A, 8 x 8 after B."""
    net = Net(inception_resnet_v2(2, blocks=(1, 1, 1)), TRAIN, plan="fused")
    shapes = {name: net.shapes[net.newest[name]] for name in ("stem_6", "reduction_a", "reduction_b", "pool", "score")}
    assert shapes == {
        "stem_6": (2, 384, 35, 35),
        "reduction_a": (2, 1152, 17, 17),
        "reduction_b": (2, 2144, 8, 8),
        "pool": (2, 2144, 1, 1),
        "score": (2, 1000),
    }


def test_the_parts_of_a_build_are_found_in_its_profile() -> None:
    """A function that was renamed would leave its part at nothing."""
    shares = plan_building.shares(inception_resnet_v2(1, blocks=(0, 0, 1)))
    assert all(share > 0 for part, share in shares.items())
    assert sum(shares.values()) == pytest.approx(1)


def test_a_function_that_returns_in_another_thread_changes_no_times() -> None:
    """As one does in cProfile from Python 3.12 on, which then may not find the function that was called at all."""

    def returning(depth: int) -> None:
        returning(depth - 1) if depth else over.wait()

    def waiting() -> None:
        over.set()
        thread.join()

    over, thread = threading.Event(), threading.Thread(target=returning, args=(9,))
    thread.start()
    file = Path(__file__).name
    spent = plan_building.spent_in([(file, "waiting"), (file, "returning")], waiting)
    assert spent[file, "waiting"] > 0 and spent[file, "returning"] == 0


@pytest.mark.slow
def test_wrong_labels_of_a_table_are_found_better_than_by_cleanlab(tmp_path: Path) -> None:
    module = importlib.import_module("benchmarks.audit")
    output = tmp_path / "audit.json"
    module.BENCHMARK.main(module.__doc__, ["--sets", "breast", "--data", "nowhere", "--output", str(output)])
    record = json.loads(output.read_text())
    mine, *theirs = record["rows"]
    assert mine["auroc"] > 98 and abs(mine["topk"] - 1) < 0.15
    if not theirs:
        assert record["notes"][0] == "cleanlab is not installed."
        pytest.skip("cleanlab is not installed")
    assert mine["auroc"] > theirs[0]["auroc"] and mine["f1"] > theirs[0]["f1"]
