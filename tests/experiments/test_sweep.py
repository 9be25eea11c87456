"""A sweep's result is a function of its cells alone: not of kills, of what ran beside them, or of how often it ran."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imae.experiments import sweep as sweep_module
from imae.experiments.cell import About, Cell, Result, cell_solver
from imae.experiments.paper import SCHEDULES, Schedule
from imae.experiments.sweep import Sweep, commands, run_sweep
from imae.experiments.train_cell import _Clock
from imae.experiments.training_accuracy import training_accuracy
from imae.nets.state import filter_layers
from imae.prototxt_like.binary import read_caffemodel
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, TRAIN, NetParameter, NetState
from imae.prototxt_like.text import read_net, read_solver
from imae.solvers.log import read_metrics
from imae.solvers.solver import Solver

SCHEDULE = Schedule(iterations=24, subset=16, test_interval=5, train_batch=4, test_batch=10)
CCE, IMAE = (Cell(20, 50, loss, 1) for loss in ("CCE", "IMAE"))
_KILLED = """
import sys
from pathlib import Path
from imae.experiments.paper import Schedule
from imae.experiments.cell import Cell
from imae.experiments.sweep import Sweep, run_sweep
sweep = Sweep(Path(sys.argv[1]), Path(sys.argv[2]), eval(sys.argv[3]))
run_sweep(sweep, [eval(sys.argv[4])], jobs=1, command="sweep", progress=lambda *_: None)
"""


@pytest.fixture(scope="module")
def data(random_cifar10: Path) -> Path:
    """20 images for training, 15 for testing."""
    return random_cifar10


def run(sweep: Sweep, *cells: Cell, jobs: int = 1, command: str = "sweep", **labels: list[int]) -> list[Result]:
    own = {name: np.array(values) for name, values in labels.items()}
    return run_sweep(sweep, cells, jobs=jobs, command=command, progress=lambda *_: None, labels=own)


def solver_param(sweep: Sweep, cell: Cell, labels: str | None = None) -> Any:
    return cell_solver(cell, sweep.schedule, sweep.folder(cell), str(sweep.data), labels)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, list[Result]]:
    """Two cells, trained side by side."""
    sweep = Sweep(tmp_path_factory.mktemp("undisturbed"), data, SCHEDULE)
    return sweep, run(sweep, CCE, IMAE, jobs=2)


def test_a_cell_is_tested_to_its_end_on_the_whole_test_set_and_leaves_its_weights(
    undisturbed: tuple[Sweep, list[Result]],
) -> None:
    sweep, results = undisturbed
    assert [result.cell for result in results] == [CCE, IMAE]
    for result in results:
        assert result.iterations == [5, 10, 15, 20, 24] and result.about.threads == 1
        assert [15 * accuracy for accuracy in result.test] == pytest.approx([round(15 * a) for a in result.test])
        assert result.best == max(result.test) and result.final == result.test[-1]
        assert 16 * result.corrupted == pytest.approx(round(16 * result.corrupted))
        curve = [
            r for r in read_metrics(sweep.folder(result.cell) / "cell.metrics.jsonl") if r["phase"] == "training set"
        ]
        assert [record["iteration"] for record in curve] == [5, 10, 15, 20, 24]
        assert (curve[-1]["corrupted"], curve[-1]["intact"]) == (result.corrupted, result.intact)
        left = {path.name for path in sweep.folder(result.cell).iterdir()}
        assert left == {"cell.log", "cell.metrics.jsonl", "cell_iter_24.caffemodel", "result.json"}


def _kill_and_restart(kills: int, undisturbed: tuple[Sweep, list[Result]], output: Path) -> None:
    reference, results = undisturbed
    sweep = replace(reference, output=output)
    moments = random.Random(kills)
    argv = [sys.executable, "-c", _KILLED, output, sweep.data, repr(SCHEDULE), repr(CCE)]
    resumed = 0
    for number in range(kills):
        before = set(output.glob("cells/*/cell_iter_*.solverstate"))
        process = subprocess.Popen(argv, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
        if number % 2:
            time.sleep(moments.uniform(0, 4))  # mostly before training
        else:
            while process.poll() is None and not set(output.glob("cells/*/cell_iter_*.solverstate")) - before:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        resumed += sweep.result(CCE) is None
    assert resumed, "every kill came after the end"
    assert run(sweep, CCE) == results[:1]
    ended, undisturbed_end = sweep.folder(CCE), reference.folder(CCE)
    assert (ended / "cell.metrics.jsonl").read_bytes() == (undisturbed_end / "cell.metrics.jsonl").read_bytes()
    weights = [read_caffemodel(folder / "cell_iter_24.caffemodel") for folder in (ended, undisturbed_end)]
    for net in weights:
        net.imae_provenance.ClearField("solver_sha256")  # it writes to another folder
    assert weights[0] == weights[1]
    assert "Restoring previous solver status" in (sweep.folder(CCE) / "cell.log").read_text()


@pytest.mark.slow
def test_a_sweep_killed_twice_ends_as_an_undisturbed_one(
    undisturbed: tuple[Sweep, list[Result]], tmp_path: Path
) -> None:
    _kill_and_restart(2, undisturbed, tmp_path)


@pytest.mark.slow
def test_a_sweep_killed_five_times_ends_as_an_undisturbed_one(
    undisturbed: tuple[Sweep, list[Result]], tmp_path: Path
) -> None:
    _kill_and_restart(5, undisturbed, tmp_path)


def test_a_finished_cell_is_not_trained_again(
    undisturbed: tuple[Sweep, list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, results = undisturbed

    def start(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("imae.experiments.sweep.subprocess.Popen", start)
    assert run(sweep, IMAE, CCE, command="again") == results[::-1]
    assert commands(sweep.output) == ["sweep", "again"]


def test_results_are_told_while_others_are_to_come(
    undisturbed: tuple[Sweep, list[Result]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, results = undisturbed
    told: list[list[Result]] = []

    def copy(processes: sweep_module._Processes, cell: Cell) -> None:
        if cell == IMAE:
            while not told:
                time.sleep(0.01)
        shutil.copytree(reference.folder(cell), processes._sweep.folder(cell))

    monkeypatch.setattr(sweep_module._Processes, "run", copy)
    sweep = replace(reference, output=tmp_path)
    options: dict[str, Any] = {"jobs": 2, "command": "sweep", "progress": lambda *_: None}
    assert run_sweep(sweep, [IMAE, CCE], so_far=told.append, **options) == results[::-1]
    assert told == [results[:1]]


def test_an_interrupt_leaves_a_snapshot_to_go_on_from(data: Path, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, data, replace(SCHEDULE, iterations=2000, test_interval=1000))

    asked = threading.Event()

    def interrupt(cell: str, iteration: int, finished: bool) -> None:
        if asked.is_set():
            return
        asked.set()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, [CCE], jobs=1, command="sweep", progress=interrupt)
    assert sweep.result(CCE) is None
    (state,) = sweep.folder(CCE).glob("cell_iter_*.solverstate")
    assert state.with_suffix(".caffemodel").exists()


def test_a_folder_with_another_schedule_is_refused(undisturbed: tuple[Sweep, list[Result]]) -> None:
    sweep, _ = undisturbed
    with pytest.raises(InputError, match=r"holds a sweep with iterations 24, not iterations 12; give another --output"):
        run(replace(sweep, schedule=replace(SCHEDULE, iterations=12)), CCE)
    with pytest.raises(InputError, match="holds a sweep with threads 1, not threads 2"):
        run(replace(sweep, threads=2), CCE)
    with pytest.raises(InputError, match="holds a sweep with dtype float32, not dtype bfloat16"):
        run(replace(sweep, dtype="bfloat16"), CCE)


def test_a_folder_from_before_sweeps_had_a_precision_is_gone_on_with(
    undisturbed: tuple[Sweep, list[Result]], tmp_path: Path
) -> None:
    reference, results = undisturbed
    sweep = replace(reference, output=tmp_path)
    shutil.copytree(reference.output, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "sweep.json").read_text())
    del settings["dtype"], settings["tf32"]
    (tmp_path / "sweep.json").write_text(json.dumps(settings))
    assert run(sweep, CCE, IMAE) == results


@pytest.mark.slow
def test_a_cell_trains_and_is_evaluated_in_the_precision_asked_for(data: Path, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, data, replace(SCHEDULE, iterations=4, test_interval=4), dtype="float64", tf32=True)
    (result,) = run(sweep, CCE)
    assert 16 * result.corrupted == pytest.approx(round(16 * result.corrupted))
    layer = next(layer for layer in read_caffemodel(sweep.folder(CCE) / "cell_iter_4.caffemodel").layer if layer.blobs)
    assert layer.blobs[0].double_data and not layer.blobs[0].data


def test_mistakes_are_named(
    undisturbed: tuple[Sweep, list[Result]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, _ = undisturbed
    with pytest.raises(InputError, match="CIFAR-10 not found"):
        run(replace(sweep, data=tmp_path, output=tmp_path / "new"), CCE)
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match=r"subset 21: .* has only 20 training images"):
        run(replace(sweep, schedule=replace(SCHEDULE, subset=21)), CCE)
    monkeypatch.setattr(sweep_module, "_LOCK_PATIENCE", 0.0)
    with sweep_module._locked(sweep.output), pytest.raises(InputError, match="another process works in this folder"):
        run(sweep, CCE)


def test_a_failing_cell_is_named_with_its_error(data: Path, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, data, SCHEDULE, device="nonsense")
    with pytest.raises(InputError, match=r"resnet20_noise50_cce_seed1: .*nonsense.* \(more in .*errors\.txt\)"):
        run(sweep, CCE)


@pytest.mark.slow
def test_a_cell_that_diverges_hinders_no_other_and_is_not_trained_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """exp(T p (1 - p)) is infinite in float32 from T = 355 on, at p = 1/2."""
    diverging = replace(IMAE, T=2000.0)
    sweep = Sweep(tmp_path, data, replace(SCHEDULE, iterations=6))
    (result,) = run(sweep, diverging, CCE)
    assert result.cell == CCE and sweep.result(diverging) is None
    divergence = sweep.divergence(diverging)
    assert divergence is not None and divergence.cell == diverging
    assert re.match(r"iteration \d: .* at learning rate 0\.1: the training diverged; ", divergence.reason)
    monkeypatch.setattr("imae.experiments.sweep.subprocess.Popen", None)
    assert run(sweep, diverging, CCE) == [result]


def test_the_short_schedule_shows_each_image_as_often_as_the_papers() -> None:
    paper, short = SCHEDULES["paper"], SCHEDULES["short"]
    assert paper.iterations * 128 / 50000 == short.iterations * 128 / short.subset == pytest.approx(164, abs=0.2)
    assert paper.steps == (32000, 48000) and short.steps == (3200, 4800)


def test_a_cell_is_trained_with_the_T_q_labels_and_images_it_names(data: Path, tmp_path: Path) -> None:
    whole = Sweep(tmp_path, data, replace(SCHEDULE, subset=0))

    def settings(cell: Cell, labels: str | None = None) -> tuple[Any, ...]:
        net = Solver(solver_param(whole, cell, labels)).net
        images, loss = net.steps[0].layer, net.steps[-1].layer.param
        own = images.param.cifar10_data_param
        return own.subset, own.noise_file, round(own.noise_rate, 6), loss.imae_param.T, round(loss.gce_param.q, 6)

    (tmp_path / "labels.txt").write_text("3\n" * 20)
    assert settings(IMAE) == (0, "", 0.5, 8, 0.7)
    assert settings(replace(IMAE, noise=0)) == (0, "", 0, 0.5, 0.7)
    assert settings(replace(IMAE, T=2.0, held_out=6)) == (14, "", 0.5, 2, 0.7)
    assert settings(replace(IMAE, loss="GCE", q=0.3))[-1] == 0.3
    own = str(tmp_path / "labels.txt")
    assert settings(replace(IMAE, noise=0, T=4.0, labels="own"), own) == (0, own, 0, 4, 0.7)
    assert (
        Solver(solver_param(whole, replace(CCE, noise=0, labels="own"), own)).net.steps[0].layer.labels.tolist()
        == [3] * 20
    )


def test_a_cells_folder_is_its_own() -> None:
    assert CCE.name == "resnet20_noise50_cce_seed1", "a folder of cells from before these settings were there"
    changed = [replace(IMAE, T=4.0), replace(IMAE, q=0.7), replace(IMAE, labels="noise50"), replace(IMAE, held_out=5)]
    assert len({cell.name for cell in (CCE, IMAE, *changed)}) == 6


def test_a_result_from_before_cells_had_more_settings_is_read(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, tmp_path, SCHEDULE)
    sweep.folder(CCE).mkdir(parents=True)
    cell = {"depth": 20, "noise": 50, "loss": "CCE", "seed": 1}
    values = {"cell": cell, "iterations": [0], "test": [0.5], "corrupted": 0.1, "intact": 0.2, "about": {}}
    (sweep.folder(CCE) / "result.json").write_text(json.dumps(values))
    assert sweep.result(CCE) == Result(CCE, [0], [0.5], 0.1, 0.2, About())


def test_images_held_out_are_those_after_the_ones_trained_on(data: Path, tmp_path: Path) -> None:
    whole = Sweep(tmp_path, data, replace(SCHEDULE, subset=0))
    solver = Solver(solver_param(whole, replace(CCE, held_out=6)))
    rest, held_out = training_accuracy(solver), training_accuracy(solver, held_out=6)
    both = training_accuracy(Solver(solver_param(whole, CCE)))
    assert 14 * rest.corrupted + 6 * held_out.corrupted == pytest.approx(20 * both.corrupted)
    assert 14 * rest.intact + 6 * held_out.intact == pytest.approx(20 * both.intact)


@pytest.mark.slow
def test_a_sweep_keeps_the_labels_its_cells_name_and_tests_on_images_held_out(data: Path, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, data, replace(SCHEDULE, iterations=4, subset=0))
    cell = Cell(20, 0, "IMAE", 1, T=8.0, labels="own", held_out=8)
    (result,) = run(sweep, cell, own=[1] * 20)
    assert 12 * result.corrupted == pytest.approx(round(12 * result.corrupted))
    for accuracy in (result.held_out_noisy, result.held_out_intact):
        assert accuracy is not None and 8 * accuracy == pytest.approx(round(8 * accuracy))
    assert np.load(sweep.labels_file("own")).tolist() == [1] * 20
    assert run(sweep, cell, own=[1] * 20) == [result]
    with pytest.raises(InputError, match='holds other labels of the name "own"; give another --output'):
        run(sweep, cell, own=[1] * 19 + [2])


def test_more_images_held_out_than_there_are_is_refused(data: Path, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, data, SCHEDULE)
    message = "5 images held out: .* has 20 training images, of which the first 16 are trained on"
    with pytest.raises(InputError, match=message):
        run(sweep, replace(CCE, held_out=5))
    with pytest.raises(InputError, match="20 images held out"):
        run(replace(sweep, schedule=replace(SCHEDULE, subset=0)), replace(CCE, held_out=20))


@pytest.mark.parametrize("loss", ["CCE", "MAE", "GCE", "IMAE"])
@pytest.mark.parametrize(("depth", "noise"), [(20, 0), (20, 20), (32, 50), (56, 80)])
def test_a_cell_is_trained_by_the_net_and_solver_of_the_examples(
    data: Path, tmp_path: Path, depth: int, noise: int, loss: str
) -> None:
    """Layer by layer but for the rules that choose among the examples', so that it trains to the same bits."""
    param = cell_solver(Cell(depth, noise, loss, 1), SCHEDULES["paper"], tmp_path, str(data), None)
    with as_file(files("imae.examples") / "cifar10") as folder:
        example = read_solver(folder / f"resnet{depth}_{loss.lower()}_noise{noise}_solver.prototxt")
        net = read_net(folder / example.net)
    assert (param.base_lr, param.momentum, param.weight_decay) == (
        example.base_lr,
        example.momentum,
        example.weight_decay,
    )
    assert (param.lr_policy, param.gamma, param.stepvalue) == (example.lr_policy, example.gamma, example.stepvalue)
    assert (param.max_iter, param.test_interval) == (example.max_iter, example.test_interval)
    for phase, state in ((TRAIN, example.train_state), (TEST, next(iter(example.test_state), NetState()))):
        chosen = []
        for each, stages in ((param.net_param, []), (net, state.stage)):
            staged = NetParameter()
            staged.CopyFrom(each)
            staged.state.CopyFrom(NetState(phase=phase, stage=stages))
            layers = list(filter_layers(staged).layer)
            for layer in layers:
                layer.ClearField("include")
            for name in ("source", "batch_size", "subset"):
                layers[0].cifar10_data_param.ClearField(name)
            chosen.append(layers)
        assert chosen[0] == chosen[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"cell": {}}',
        '{"cell": 3}',
        "\xff",
        "[" * 100_000,
        {"test": "0.5"},
        {"test": []},
        {"test": [0.5, 0.6]},
        {"test": [None]},
        {"test": [float("nan")]},
        {"corrupted": None},
        {"about": {"seconds": "long"}},
        {"about": []},
        {"more": 1},
    ],
)
def test_a_damaged_result_is_named(tmp_path: Path, text: Any) -> None:
    sweep = Sweep(tmp_path, tmp_path, SCHEDULE)
    sweep.folder(CCE).mkdir(parents=True)
    cell = {"depth": 20, "noise": 50, "loss": "CCE", "seed": 1}
    values = {"cell": cell, "iterations": [0], "test": [0.5], "corrupted": 0.1, "intact": 0.2, "about": {}}
    text = text if isinstance(text, str) else json.dumps({**values, **text})
    (sweep.folder(CCE) / "result.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"result\.json: is no result of a cell"):
        sweep.result(CCE)


def test_a_result_of_another_cell_is_named(undisturbed: tuple[Sweep, list[Result]], tmp_path: Path) -> None:
    reference, _ = undisturbed
    sweep = replace(reference, output=tmp_path)
    shutil.copytree(reference.folder(IMAE), sweep.folder(CCE))
    with pytest.raises(InputError, match="is the result of resnet20_noise50_imae_seed1"):
        sweep.result(CCE)


@pytest.mark.parametrize("text", ["", "[]", "3", "\xff", "[" * 100_000])
def test_damaged_settings_are_named(undisturbed: tuple[Sweep, list[Result]], tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"sweep\.json: does not hold the settings of a sweep"):
        run(replace(undisturbed[0], output=tmp_path), CCE)


def test_damaged_notes_of_commands_are_read_as_far_as_they_can_be(tmp_path: Path) -> None:
    (tmp_path / "commands.txt").write_bytes(b"imae \xff\nimae b\n")
    assert commands(tmp_path)[1] == "imae b"


def test_a_damaged_clock_of_a_cell_is_named(tmp_path: Path) -> None:
    (tmp_path / "seconds.txt").write_text("long")
    with pytest.raises(InputError, match=r"seconds\.txt: does not hold seconds; delete it$"):
        _Clock(tmp_path / "seconds.txt")
