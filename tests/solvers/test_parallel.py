"""Data-parallel training: processes with a batch each end where one process with the sum of the batches does."""

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from imae.cli.options import choose_device
from imae.layers.data.data_layer import DataError, DataLayer
from imae.nets.net import Net
from imae.prototxt_like.binary import blob_to_array, read_caffemodel, read_solverstate
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TRAIN, SolverParameter
from imae.prototxt_like.text import parse_solver
from imae.solvers.log import read_metrics
from imae.solvers.parallel import ParallelSolver, Processes, ProcessLost
from imae.solvers.solver import Solver, TrainingEnded

BATCH = 8
NET = """
name: "digits"
layer { name: "data" type: "DigitsData" top: "data" top: "label" include { phase: TRAIN }
  digits_data_param { batch_size: BATCH noise_kind: SYMMETRIC noise_rate: 0.2 } transform_param { scale: 0.1 } }
layer { name: "data" type: "DigitsData" top: "data" top: "label" include { phase: TEST }
  digits_data_param { batch_size: 10 } transform_param { scale: 0.1 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
NORM
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" dropout_param { dropout_ratio: 0.1 } }
layer { name: "hidden" type: "InnerProduct" bottom: "conv" top: "hidden"
  param { name: "w" } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 144 weight_filler { type: "xavier" } } }
layer { name: "shared" type: "InnerProduct" bottom: "hidden" top: "again" param { name: "w" } param { lr_mult: 2 }
  inner_product_param { num_output: 144 } }
layer { name: "frozen" type: "InnerProduct" bottom: "again" top: "frozen" param { lr_mult: 0 } param { lr_mult: 0 }
  inner_product_param { num_output: 20 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "frozen" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" exclude { stage: "weights" } }
layer { name: "loss" type: "SoftmaxWithIMAELoss" bottom: "ip" bottom: "label" top: "loss" include { stage: "weights" }
  imae_param { normalize_by: WEIGHTS } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" top: "by_class"
  include { phase: TEST } }
"""
NORM = 'layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" }'
SOLVER = """
net: "net.prototxt" base_lr: 0.05 momentum: 0.9 weight_decay: 0.001 lr_policy: "fixed" random_seed: 5 max_iter: 8
display: 4 average_loss: 2 test_iter: 5 test_interval: 4 snapshot: 4 snapshot_prefix: "run"
"""
CASES = {
    "plain": "",
    "clipped": "clip_gradients: 0.05",
    "several passes": "iter_size: 2",
    "resumed": "",
    "by weights": 'train_state { stage: "weights" }',
}


def enter(folder: Path, batch: int = BATCH, norm: str = "") -> None:
    """Make `folder`, with the two prototxt files, the working directory of this process."""
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    Path("net.prototxt").write_text(NET.replace("BATCH", str(batch)).replace("NORM", norm))
    Path("solver.prototxt").write_text(SOLVER)


def solver_param(settings: str = "") -> SolverParameter:
    param = parse_solver(SOLVER)
    if settings:
        param.MergeFrom(parse_solver(settings))
    return param


@pytest.fixture(autouse=True)
def _stay_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


# Processes: forked from one that has imported torch and computed nothing yet

forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload(["imae.solvers.parallel", "imae.cli"])


def start(count: int, work: Callable[..., None], *arguments: Any) -> list[Any]:
    """Start `count` processes as torchrun would, each to call `work(rank, *arguments)`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [forkserver.Process(target=_be, args=(rank, count, port, work, arguments)) for rank in range(count)]
    for process in processes:
        process.start()
    return processes


def _be(rank: int, count: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    about = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in about.items()}, MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    work(rank, *arguments)


def finish(processes: list[Any], seconds: float = 120) -> list[int]:
    """Wait for the processes, and return their exit codes."""
    try:
        for process in processes:
            process.join(seconds)
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()


def train_cases(rank: int, folder: Path) -> None:
    processes = Processes(torch.device("cpu"))
    for name, settings in CASES.items():
        os.chdir(folder / name)
        solver = ParallelSolver(solver_param(settings), processes)
        solver.solve("../one resumed/run_iter_4.solverstate" if name == "resumed" else None)
        torch.save(solver.net.storage.data, f"{rank}.pt")
    os.chdir(folder / "normalised")
    solver = ParallelSolver(solver_param("random_seed: -1"), processes)
    solver.solve()
    torch.save(solver.net.storage.data, f"{rank}.pt")
    os.chdir(folder / "stopped")
    solver = ParallelSolver(solver_param(), processes)

    last = processes.count - 1

    def ask(what: str, done: int, total: int) -> None:
        solver.snapshot_requested = rank == last and (what, done) == ("train", 1)
        solver.stop_requested = rank == last and (what, done) == ("train", 5)

    solver.on_progress = ask
    solver.solve()
    Path(f"{rank}.txt").write_text(f"{solver.iteration} {solver.stop_requested}")
    os.chdir(folder / "interrupted")
    solver = ParallelSolver(solver_param(), processes)

    def interrupt(what: str, done: int, total: int) -> None:
        solver.stop_requested = rank == last and what == "test" and solver.iteration == 4

    solver.on_progress = interrupt
    solver.solve()
    Path(f"{rank}.txt").write_text(f"{solver.iteration} {[net.context.passes.number for net in solver.test_nets]}")
    processes.leave()


@pytest.fixture(scope="module", params=[1, 2, pytest.param(3, marks=pytest.mark.slow)], ids="{} processes".format)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """How many processes trained, and the folder of what they left; in `one` and its like, one process's."""
    count, folder, here = request.param, tmp_path_factory.mktemp("parallel"), Path.cwd()
    try:
        for name, settings in CASES.items():
            enter(folder / f"one {name}", count * BATCH)
            solver = Solver(solver_param(settings))
            solver.solve()
            torch.save(solver.net.storage.data, "0.pt")
        for name in (*CASES, "normalised", "stopped", "interrupted"):
            enter(folder / name, norm=NORM if name == "normalised" else "")
    finally:
        os.chdir(here)
    assert finish(start(count, train_cases, folder)) == [0] * count
    return count, folder


def weights(folder: Path, rank: int = 0) -> torch.Tensor:
    loaded: torch.Tensor = torch.load(folder / f"{rank}.pt")
    return loaded


@pytest.mark.parametrize("case", CASES)
def test_the_weights_are_those_of_one_process_with_the_sum_of_the_batches(trained: tuple[int, Path], case: str) -> None:
    """With clipping, shared and frozen weights, dropout, several passes; and from a snapshot of the one process."""
    count, folder = trained
    expected = weights(folder / f"one {case}")
    assert count == 1 or not torch.equal(weights(folder / "plain"), weights(folder / "one clipped"))
    torch.testing.assert_close(weights(folder / case), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_losses_and_test_results_are_those_of_one_process(trained: tuple[int, Path], case: str) -> None:
    """The logged loss is the mean over the processes, and a test has as many batches, shared out."""
    _, folder = trained
    ours, expected = (read_metrics(folder / name / "run.metrics.jsonl") for name in (case, f"one {case}"))
    kept = [record for record in expected if case != "resumed" or record["iteration"] >= 4]
    assert len(ours) == len(kept) >= 3
    for record, same in zip(ours, kept, strict=True):
        assert record.pop("phase") == same.pop("phase")
        assert record.keys() == same.keys()
        for name, value in record.items():
            assert value == pytest.approx(same[name], rel=1e-4)
    assert len(ours[-1]["by_class_over_all_images"]) == 10


def test_all_processes_hold_the_same_learned_weights(trained: tuple[int, Path]) -> None:
    """Bit by bit, also after BatchNorm layers, whose statistics each process has of its own, and an unknown seed."""
    count, folder = trained
    for rank in range(count):
        assert torch.equal(weights(folder / "plain", rank), weights(folder / "plain"))
    param = read_caffemodel(folder / "normalised" / "run_iter_8.caffemodel")
    saved = {layer.name: layer.blobs for layer in param.layer}
    enter(folder / "normalised", norm=NORM)
    net = Net("net.prototxt", TRAIN, plan="fused")
    for rank in range(count):
        net.storage.data.copy_(weights(folder / "normalised", rank))
        for name in ("conv", "hidden", "ip"):
            assert net.params[name][0].data.numpy() == pytest.approx(blob_to_array(saved[name][0]), abs=0)
        assert rank == 0 or net.params["norm"][0].data.numpy() != pytest.approx(blob_to_array(saved["norm"][0]))


def test_one_process_goes_on_from_the_snapshot_of_several(trained: tuple[int, Path]) -> None:
    """At the right place in the data, by the size of its own batch."""
    count, folder = trained
    enter(folder / "plain", count * BATCH)
    assert read_solverstate("run_iter_4.solverstate").imae_state.train_forwards == 4 * count
    solver = Solver(solver_param('snapshot_prefix: "again"'))
    solver.solve("run_iter_4.solverstate")
    torch.testing.assert_close(solver.net.storage.data, weights(folder / "one plain"), rtol=1e-4, atol=1e-6)


def test_a_stop_asked_of_one_process_stops_all_after_the_same_iteration(trained: tuple[int, Path]) -> None:
    count, folder = trained
    assert {(folder / "stopped" / f"{rank}.txt").read_text() for rank in range(count)} == {"6 True"}
    assert (folder / "stopped" / "run_iter_6.solverstate").exists()
    assert (folder / "stopped" / "run_iter_2.solverstate").exists(), "so does a snapshot"


def test_a_stop_asked_of_one_process_breaks_off_the_test_of_all(trained: tuple[int, Path]) -> None:
    """Which is done again after resuming, on the same batches."""
    count, folder = trained
    assert {(folder / "interrupted" / f"{rank}.txt").read_text() for rank in range(count)} == {"4 [5]"}
    records = read_metrics(folder / "interrupted" / "run.metrics.jsonl")
    assert [record["iteration"] for record in records if record["phase"] == "test"] == [0]


# Pieces


def test_the_batch_prepared_ahead_is_the_one_this_process_reads_next() -> None:
    enter(Path("here"))
    net = Net("net.prototxt", TRAIN, seed=3)
    net.context.passes.number, net.context.passes.stride = 1, 3
    read: list[int] = []
    layer = next(step.layer for step in net.steps if isinstance(step.layer, DataLayer))
    batch = layer.batch
    layer.batch = lambda number: (read.append(number), batch(number))[1]  # type: ignore[method-assign]
    for _ in range(3):
        net.forward()
    layer.forward([], {})
    assert net.context.passes.number == 10 and read[:4] == [1, 4, 7, 10] and len(read) <= 5


def test_an_environment_that_is_not_torchruns_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="RANK, MASTER_ADDR, MASTER_PORT: not in the environment"):
        Processes(torch.device("cpu"))


class Deserted(Processes):
    """Process 0 of 2, of which the other ends when `left` sums are made."""

    def __init__(self, left: int) -> None:
        self.rank, self.count, self._left = 0, 2, left

    def from_first(self, value: Any) -> Any:
        return value

    def copy_from_first(self, tensor: torch.Tensor) -> None:
        pass

    def begin_sum(self, tensor: torch.Tensor) -> Any:
        return tensor.mul_(2)

    def finish(self, *works: Any) -> None:
        self._left -= 1
        if self._left < 0:
            raise ProcessLost("it ended")

    def first_to_claim(self, what: str) -> bool:
        return True


class Hanging:
    """A sum that a GPU waits for in vain."""

    def is_completed(self) -> bool:
        return False


def test_a_loss_in_mid_iteration_leaves_the_state_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running statistics and the place in the data included; unless a GPU may have no whole weights."""
    enter(tmp_path / "here", norm=NORM)
    settings = "test_interval: 1000 test_initialization: false"
    whole = ParallelSolver(solver_param(settings), Deserted(1000))
    whole.step(3)
    solver = ParallelSolver(solver_param(settings), Deserted(3))
    monkeypatch.setattr(ParallelSolver, "_update_is_whole", lambda self: True)
    with pytest.raises(ProcessLost) as caught:
        solver.step(5)
    assert caught.value.state == Path("run_iter_3.solverstate")
    assert torch.equal(solver.net.storage.data, whole.net.storage.data)
    state = read_solverstate("run_iter_3.solverstate")
    assert (state.iter, state.imae_state.train_forwards) == (3, whole.net.context.passes.number) == (3, 6)
    monkeypatch.undo()
    solver._applied = [Hanging()]
    assert not solver._update_is_whole(patience=0.0)


def test_data_that_cannot_be_read_ends_a_process_with_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the second of an iteration's passes, when running statistics and place in the data have moved on."""
    enter(tmp_path / "here", norm=NORM)
    settings = "test_interval: 1000 test_initialization: false iter_size: 2"
    whole = ParallelSolver(solver_param(settings), Deserted(1000))
    whole.step(3)
    monkeypatch.setattr(ParallelSolver, "_update_is_whole", lambda self: True)
    for claims in (True, False):
        monkeypatch.setattr(Deserted, "first_to_claim", lambda self, what, claims=claims: claims)
        solver = ParallelSolver(solver_param(settings), Deserted(1000))
        forward, passes = solver.net.forward, iter([True] * 7)

        def fail_at_last(forward: Any = forward, passes: Any = passes) -> Any:
            if not next(passes, False):
                raise DataError("db: cut")
            return forward()

        monkeypatch.setattr(solver.net, "forward", fail_at_last)
        with pytest.raises(TrainingEnded, match="db: cut") as caught:
            solver.step(5)
        assert caught.value.speaks, "whichever process writes the snapshot, this one knows why"
        assert caught.value.state == (Path("run_iter_3.solverstate") if claims else None)
        assert torch.equal(solver.net.storage.data, whole.net.storage.data)
    state = read_solverstate("run_iter_3.solverstate")
    assert (state.iter, state.imae_state.train_forwards) == (3, whole.net.context.passes.number) == (3, 12)


def test_each_process_of_a_machine_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    chosen = [str(choose_device(gpu, False, local_rank=1)) for gpu in (None, "all", "3,2", "0,1,3")]
    assert chosen == ["cuda:1", "cuda:1", "cuda:2", "cuda:1"]
    assert str(choose_device(None, True, local_rank=1)) == "cpu"
    with pytest.raises(InputError, match="more processes were started here than the 1 GPU they may use"):
        choose_device("2", False, local_rank=1)


# The command


def command(rank: int, folder: Path, *arguments: str) -> None:
    """`imae train` with the output of each process in a file."""
    os.chdir(folder)
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}{rank}", os.O_CREAT | os.O_WRONLY), stream)
    from imae.cli import main

    main(["train", "--solver", "solver.prototxt", "--cpu", *arguments])


ENDLESS = ("--iterations", "1000000", "--set", "display=1000", "--set", "test_interval=1000000")


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} was never written")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_training_with_a_snapshot_of_a_whole_iteration(tmp_path: Path, victim: int) -> None:
    """The other says so in one line; what resumes from its snapshot sees what an uninterrupted run would."""
    enter(tmp_path / "run")
    processes = start(2, command, tmp_path / "run", *ENDLESS)
    wait_for(Path("run_iter_40.solverstate"))
    os.kill(processes[victim].pid, signal.SIGKILL)
    codes = finish(processes)
    assert codes[1 - victim] == 1
    (line,) = (line for line in Path(f"err{1 - victim}").read_text().splitlines() if "error" in line)
    newest = max(Path().glob("*.solverstate"), key=lambda path: int(path.stem.rpartition("_")[2]))
    iteration = int(newest.stem.rpartition("_")[2])
    assert line.startswith(f"imae: error: iteration {iteration}: another process of the training was lost (")
    assert line.endswith(f"--snapshot {newest}")
    assert "torchrun --nproc-per-node=2 -m imae train --solver solver.prototxt --cpu" in line
    enter(tmp_path / "one", 2 * BATCH)
    solver = Solver(solver_param(f"max_iter: {iteration} test_interval: 1000000"))
    solver.solve()
    left = Solver(solver_param())
    left.restore(tmp_path / "run" / newest)
    assert left.net.context.passes.number == iteration
    torch.testing.assert_close(left.net.storage.data, solver.net.storage.data, rtol=0.02, atol=1e-3)
    torch.testing.assert_close(left.update.histories[0], solver.update.histories[0], rtol=0.02, atol=1e-3)


def test_sigterm_to_one_process_stops_all_with_a_snapshot(tmp_path: Path) -> None:
    """And the echo of the signal, by which a launcher passes it on, does not abort that."""
    enter(tmp_path / "run")
    processes = start(2, command, tmp_path / "run", *ENDLESS)
    wait_for(Path("run_iter_4.solverstate"))
    for _ in range(2):
        with contextlib.suppress(ProcessLookupError):
            os.kill(processes[1].pid, signal.SIGTERM)
    assert finish(processes) == [143, 143]
    out = Path("out0").read_text()
    assert "Stopped at iteration" in out and "Resume with: torchrun --nproc-per-node=2" in out
    assert Path(out.split("--snapshot ")[1].strip()).exists()
    assert Path("out1").read_text() == Path("err1").read_text() == ""


def test_divergence_stops_all_processes_and_one_tells(tmp_path: Path) -> None:
    """Though only a mean of losses shows it: each process has other images."""
    enter(tmp_path / "run")
    processes = start(2, command, tmp_path / "run", *ENDLESS, "--set", "base_lr=1e30", "--set", "test_interval=1000")
    assert finish(processes) == [1, 1]
    error = Path("err0").read_text().splitlines()[-1]
    assert error.startswith("imae: error: iteration ") and "the training diverged; there is no sound snapshot" in error
    assert Path("out1").read_text() == Path("err1").read_text() == ""


@pytest.mark.slow
def test_torchrun_starts_again_what_was_killed(tmp_path: Path) -> None:
    """`torchrun --max-restarts=1 ... train --resume` survives a kill -9, and ends as one process does."""
    enter(tmp_path / "run")
    settings = ("--iterations", "400", "--set", "test_interval=1000", "--set", "display=0", "--set", "snapshot=20")
    words = ["-m", "imae", "train", "--solver", "solver.prototxt", "--cpu", "--resume", *settings]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    with Path("err").open("w") as err:
        running = subprocess.Popen(
            [*launcher, *words], stderr=err, stdout=err, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        wait_for(Path("run_iter_20.solverstate"))
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        assert running.wait(300) == 0, Path("err").read_text()
    assert "another process of the training was lost" in Path("err").read_text()
    enter(tmp_path / "one", 2 * BATCH)
    solver = Solver(solver_param("max_iter: 400 test_interval: 1000 display: 0"))
    solver.solve()
    again = Solver(solver_param())
    again.restore(tmp_path / "run" / "run_iter_400.solverstate")
    assert again.net.context.passes.number == 400
    torch.testing.assert_close(again.net.storage.data, solver.net.storage.data, rtol=0.05, atol=1e-2)
