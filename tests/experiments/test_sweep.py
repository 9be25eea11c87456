"""A sweep's result is a function of its cells alone: not of kills, of what ran beside them, or of how often it ran."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imae.experiments import sweep as sweep_module
from imae.experiments.paper import SCHEDULES, Schedule
from imae.experiments.sweep import Cell, Result, Sweep, commands, run_sweep
from imae.prototxt_like.errors import InputError
from imae.solvers.log import read_metrics

SCHEDULE = Schedule(iterations=24, subset=16, test_interval=5, train_batch=4, test_batch=10)
CCE, IMAE = (Cell(20, 50, loss, 1) for loss in ("CCE", "IMAE"))
_KILLED = """
import sys
from pathlib import Path
from imae.experiments.paper import Schedule
from imae.experiments.sweep import Cell, Sweep, run_sweep
sweep = Sweep(Path(sys.argv[1]), Path(sys.argv[2]), eval(sys.argv[3]))
run_sweep(sweep, [eval(sys.argv[4])], jobs=1, command="sweep", progress=lambda *_: None)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random images in the form of CIFAR-10's binary version: 5 x 4 for training, 15 for testing."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, count in {**{f"data_batch_{i}": 4 for i in range(1, 6)}, "test_batch": 15}.items():
        records = rng.integers(0, 256, (count, 1 + 3 * 32 * 32), np.uint8)
        records[:, 0] %= 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return root


def run(sweep: Sweep, *cells: Cell, jobs: int = 1, command: str = "sweep") -> list[Result]:
    return run_sweep(sweep, cells, jobs=jobs, command=command, progress=lambda *_: None)


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
        assert result.iterations == [0, 5, 10, 15, 20, 24] and result.about["threads"] == 1
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
    for file in ("cell.metrics.jsonl", "cell_iter_24.caffemodel"):
        assert (sweep.folder(CCE) / file).read_bytes() == (reference.folder(CCE) / file).read_bytes()
    assert "Restoring previous solver status" in (sweep.folder(CCE) / "cell.log").read_text()


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
    damaged = replace(sweep, output=tmp_path)
    damaged.folder(CCE).mkdir(parents=True)
    (damaged.folder(CCE) / "result.json").write_text(json.dumps({"cell": {}}))
    with pytest.raises(InputError, match=r"result\.json: is no result of a cell"):
        damaged.result(CCE)


def test_a_failing_cell_is_named_with_its_error(data: Path, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, data, SCHEDULE, device="nonsense")
    with pytest.raises(InputError, match=r"resnet20_noise50_cce_seed1: .*nonsense.* \(more in .*errors\.txt\)"):
        run(sweep, CCE)


def test_the_short_schedule_shows_each_image_as_often_as_the_papers() -> None:
    paper, short = SCHEDULES["paper"], SCHEDULES["short"]
    assert paper.iterations * 128 / 50000 == short.iterations * 128 / short.subset == pytest.approx(164, abs=0.2)
    assert paper.steps == (32000, 48000) and short.steps == (3200, 4800)
