"""`imae train` and `imae test` from end to end: files, resuming after any end, and what they print."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

import imae.cli.progress
from imae.layers.data.digits_data import load_digits
from imae.layers.data.label_noise import corrupt
from imae.prototxt_like.binary import read_caffemodel, read_solverstate
from imae.prototxt_like.schema import Datum
from imae.solvers.log import read_metrics

TRAIN = ("train", "--solver", "solver.prototxt", "--cpu")
Imae = Callable[..., Any]


@pytest.fixture
def uninterrupted(imae: Imae, enter: Callable[[str], Path]) -> tuple[bytes, bytes]:
    """The final caffemodel and solverstate of a run from beginning to end; leaves a fresh folder entered."""
    folder = enter("uninterrupted")
    assert imae(*TRAIN).status == 0
    enter("again")
    return final(folder)


def final(folder: Path) -> tuple[bytes, bytes]:
    stem = folder / "out" / "digits_iter_60"
    return stem.with_suffix(".caffemodel").read_bytes(), stem.with_suffix(".solverstate").read_bytes()


def at_iteration(number: int, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch, *, of: str = "train") -> None:
    """Have `act` called once that iteration (or batch, of a test) is done."""
    advance = imae.cli.progress.Display.advance

    def advancing(self: imae.cli.progress.Display, what: str, done: int, total: int) -> None:
        advance(self, what, done, total)
        if (what, done) == (of, number):
            act()

    monkeypatch.setattr(imae.cli.progress.Display, "advance", advancing)


def test_what_a_run_prints_and_writes(imae: Imae, digits: Path) -> None:
    outcome = imae("train", "-solver", "solver.prototxt", "-cpu")
    assert outcome.status == 0
    assert {path.name for path in (digits / "out").iterdir()} == {
        "digits.log",
        "digits.metrics.jsonl",
        *(f"digits_iter_{n}.{kind}" for n in (20, 40, 60) for kind in ("caffemodel", "solverstate")),
    }
    assert outcome.out.startswith("Done at iteration 60: 60 iterations in ")
    assert "Test net #0 at iteration 50: accuracy = " in outcome.out
    assert "out/digits_iter_60.solverstate" in outcome.out
    log = (digits / "out" / "digits.log").read_text()
    assert log.splitlines()[1:] == outcome.err.splitlines(), "stderr, here no terminal, has the log's lines alone"
    assert log.isprintable() or not re.search(r"[\x00-\x09\x0b-\x1f]", log), "no control characters"
    assert "1210 learnable parameters" in log
    assert '] Loss "loss": SoftmaxWithLoss\n' in log


def test_the_log_is_read_by_parsers_of_caffes_logs(imae: Imae, digits: Path) -> None:
    """By the patterns of Caffe's tools/extra: a time in each line, outputs and learning rates by iteration."""
    assert imae(*TRAIN).status == 0
    iteration, rates, outputs = -1, {}, {}
    first, *lines = (digits / "out" / "digits.log").read_text().splitlines()
    assert re.fullmatch(r"Log file created at: \d{4}/\d\d/\d\d \d\d:\d\d:\d\d", first)
    for line in lines:
        date, clock, _thread, source, *_ = line.split()
        assert re.fullmatch(r"I\d{4}", date)
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{6}", clock)
        assert re.fullmatch(r"\w+\.cpp:\d+]", source)
        if found := re.search(r"Iteration (\d+)", line):
            iteration = int(found[1])
        if found := re.search(r"lr = ([-+]?[0-9]*\.?[0-9]+([eE]?[-+]?[0-9]+)?)", line):
            rates[iteration] = float(found[1])
        if found := re.search(r"(Train|Test) net output #(\d+): (\S+) = ([\.\deE+-]+)", line):
            outputs[found[1], iteration, found[3]] = float(found[4])
    assert sum("] Solving " in line for line in lines) == 1
    assert rates == {0: 0.05, 10: 0.05, 20: 0.05, 30: 0.05, 40: 0.025, 50: 0.025}
    assert [key[1] for key in outputs if key[0] == "Train"] == [0, 10, 20, 30, 40, 50]
    assert [key[1:] for key in outputs if key[0] == "Test"] == [
        (n, out) for n in (0, 25, 50) for out in ("accuracy", "loss")
    ]


def test_metrics_are_complete_also_after_resuming(imae: Imae, digits: Path) -> None:
    assert imae(*TRAIN).status == 0
    path = digits / "out" / "digits.metrics.jsonl"
    whole = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r["iteration"] for r in whole if r["phase"] == "train"] == [0, 10, 20, 30, 40, 50]
    assert [r["iteration"] for r in whole if r["phase"] == "test"] == [0, 25, 50]
    assert imae(*TRAIN, "--snapshot", "out/digits_iter_20.solverstate").status == 0
    assert [json.loads(line) for line in path.read_text().splitlines()] == whole


def test_a_run_resumed_from_a_snapshot_ends_the_same(imae: Imae, uninterrupted: tuple[bytes, bytes]) -> None:
    assert imae(*TRAIN, "--iterations", "33").status == 0
    outcome = imae(*TRAIN, "--snapshot", "out/digits_iter_33.solverstate")
    assert outcome.status == 0
    assert "Done at iteration 60: 27 iterations" in outcome.out
    assert final(Path()) == uninterrupted


def test_a_killed_run_resumed_from_its_newest_snapshot_ends_the_same(
    imae: Imae, uninterrupted: tuple[bytes, bytes]
) -> None:
    code = """
import os, signal
from imae.cli import main, progress
def advance(self, what, done, total):
    if (what, done) == ("train", 47):
        os.kill(os.getpid(), signal.SIGKILL)
progress.Display.advance = advance
main()
"""
    killed = subprocess.run([sys.executable, "-c", code, *TRAIN, "--resume"], env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    newest = Path("out/digits_iter_40.caffemodel")
    newest.write_bytes(newest.read_bytes()[:-50])
    outcome = imae(*TRAIN, "--resume")
    assert "imae: warning: passed over" in outcome.err, "the snapshot of iteration 40 is no longer whole"
    assert "Done at iteration 60: 40 iterations" in outcome.out
    assert final(Path()) == uninterrupted


@pytest.mark.parametrize(("which", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_stopped_run_says_how_to_resume_and_ends_the_same(
    imae: Imae, uninterrupted: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch, which: str, status: int
) -> None:
    """Its exit status is that of a process that the signal ended."""
    with monkeypatch.context() as patch:
        at_iteration(29, lambda: signal.raise_signal(getattr(signal, which)), patch)
        outcome = imae(*TRAIN, "--set", "snapshot_after_train=false")
    assert outcome.status == status
    assert "Stopped at iteration 29" in outcome.out
    command = outcome.out.rpartition("Resume with: ")[2]
    assert "--set snapshot_after_train=false --snapshot out/digits_iter_29.solverstate" in command
    assert imae(*shlex.split(command)[1:]).status == 0
    assert final(Path()) == uninterrupted


def test_a_run_stopped_in_its_first_test_resumes_too(
    imae: Imae, uninterrupted: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_iteration(2, lambda: signal.raise_signal(signal.SIGINT), patch, of="test")
        outcome = imae(*TRAIN)
    assert "Stopped at iteration 0" in outcome.out
    assert imae(*shlex.split(outcome.out.rpartition("Resume with: ")[2])[1:]).status == 0
    assert final(Path()) == uninterrupted


@pytest.mark.parametrize(("which", "status", "said"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_a_second_interrupt_aborts(
    imae: Imae, digits: Path, monkeypatch: pytest.MonkeyPatch, which: str, status: int, said: str
) -> None:
    at_iteration(5, lambda: [signal.raise_signal(getattr(signal, which)) for _ in range(2)], monkeypatch)
    before = signal.getsignal(signal.SIGINT)
    outcome = imae(*TRAIN)
    assert outcome.status == status
    assert outcome.err.endswith(f"imae: {said}\n")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_hang_up_takes_a_snapshot_and_goes_on(imae: Imae, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_iteration(13, lambda: signal.raise_signal(signal.SIGHUP), monkeypatch)
    outcome = imae(*TRAIN)
    assert "Done at iteration 60" in outcome.out
    assert (digits / "out" / "digits_iter_13.solverstate").exists()


def test_signals_do_what_the_options_say(imae: Imae, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_iteration(13, lambda: signal.raise_signal(signal.SIGINT), monkeypatch)
    assert "Done at iteration 60" in imae(*TRAIN, "-sigint_effect", "none").out
    assert not (digits / "out" / "digits_iter_13.solverstate").exists()
    assert "Done at iteration 60" in imae(*TRAIN, "-sigint_effect", "snapshot", "--overwrite").out
    assert (digits / "out" / "digits_iter_13.solverstate").exists()


def test_options_change_the_solver(imae: Imae, digits: Path) -> None:
    overrides = ("--set", "type=SGD", "--set", "test_iter=3", "--set", "stepvalue=5", "--set", "stepvalue=[8]")
    outcome = imae(
        *TRAIN, "--iterations", "9", "--prefix", "else/where", "--seed", "3", "--set", "lr_policy=multistep", *overrides
    )
    assert outcome.status == 0
    assert read_solverstate("else/where_iter_9.solverstate").current_step == 2
    assert read_solverstate("else/where_iter_9.solverstate").imae_state.random_seed == 3
    assert not (digits / "out").exists()


def test_a_prefix_that_is_a_folder_keeps_the_solvers_name(imae: Imae, digits: Path) -> None:
    assert imae(*TRAIN, "--iterations", "1", "--prefix", "new/").status == 0
    assert imae(*TRAIN, "--iterations", "2", "--prefix", "new", "--resume").status == 0
    assert {"solver.log", "solver_iter_1.caffemodel", "solver_iter_2.caffemodel"} <= {
        p.name for p in Path("new").iterdir()
    }


def test_weights_start_a_run_from_the_layers_of_the_same_names(imae: Imae, digits: Path) -> None:
    assert imae(*TRAIN, "--iterations", "20").status == 0
    text = Path("net.prototxt").read_text()
    Path("net.prototxt").write_text(text.replace('name: "ip2"', 'name: "new"'))
    weights = "out/digits_iter_20.caffemodel"
    outcome = imae(*TRAIN, "--iterations", "1", "--prefix", "tuned/net", "--set", "base_lr=0", "--weights", weights)
    assert f"Copied the weights of 1 layer from {weights}" in outcome.err
    assert "Layers that keep theirs: new" in outcome.err
    assert "Ignoring source layers ip2" in outcome.err
    before, after = (
        {layer.name: layer.blobs for layer in read_caffemodel(path).layer}
        for path in (weights, "tuned/net_iter_1.caffemodel")
    )
    assert list(before["ip1"]) == list(after["ip1"])


def test_the_solvers_mode_and_the_options_choose_the_device(
    imae: Imae, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert "on CPU" in imae("train", "--solver", "solver.prototxt", "--iterations", "1", "--set", "solver_mode=CPU").err
    from imae.cli.options import choose_device

    assert [
        str(choose_device(gpu, cpu)) for gpu, cpu in ((None, False), ("0", False), ("all", False), (None, True))
    ] == [
        "cuda:0",
        "cuda:0",
        "cuda:0",
        "cpu",
    ]


def test_testing_prints_each_batch_and_the_means(imae: Imae, digits: Path) -> None:
    assert imae(*TRAIN).status == 0
    weights = digits / "out" / "digits_iter_60.caffemodel"
    outcome = imae("test", "-model", "net.prototxt", "-weights", weights, "-iterations", "25", "-cpu")
    assert outcome.status == 0
    accuracies = [float(value) for value in re.findall(r"Batch \d+, accuracy = (\S+)", outcome.err)]
    losses = [float(value) for value in re.findall(r"Batch \d+, loss = (\S+)", outcome.err)]
    assert len(accuracies) == len(losses) == 25
    mean, loss = sum(accuracies) / 25, sum(losses) / 25
    assert 0.5 < mean < 1, "it learned something from 1,200 images"
    first, second, third = outcome.out.splitlines()
    assert float(first.removeprefix("Loss: ")) == pytest.approx(loss, rel=1e-4)
    assert float(second.removeprefix("accuracy = ")) == pytest.approx(mean, rel=1e-4)
    found = re.fullmatch(r"loss = (\S+) \(\* 1 = (\S+) loss\)", third)
    assert found
    assert float(found[1]) == float(found[2]) == pytest.approx(loss, rel=1e-4)


def test_without_capture_a_run_ends_with_the_same_bits(imae: Imae, uninterrupted: tuple[bytes, bytes]) -> None:
    assert imae(*TRAIN, "--no-capture").status == 0
    assert final(Path()) == uninterrupted


@pytest.mark.parametrize(
    ("precision", "doubles", "floats"), [("fp64", 16 * 64, 0), ("tf32", 0, 16 * 64), ("bf16", 0, 16 * 64)]
)
def test_weights_are_stored_in_their_precision(
    imae: Imae, digits: Path, precision: str, doubles: int, floats: int
) -> None:
    assert imae(*TRAIN, "--iterations", "1", "--precision", precision).status == 0
    (blob, _) = read_caffemodel("out/digits_iter_1.caffemodel").layer[1].blobs
    assert (len(blob.double_data), len(blob.data)) == (doubles, floats)
    tested = imae(
        "test", "--model", "net.prototxt", "--weights", "out/digits_iter_1.caffemodel", "--precision", precision
    )
    assert "accuracy = " in tested.out


def test_train_and_test_say_how_many_labels_are_wrong(imae: Imae, digits: Path) -> None:
    intact = load_digits(True)[1].numpy()
    wrong = int((corrupt(intact, 10, "SYMMETRIC", 0.2, seed=0) != intact).sum())
    share = f"{wrong} of 1297 labels ({wrong / 12.97:.1f} %) differ from the intact ones"
    line = f'Layer "data": symmetric noise at rate 0.2, {share}\n'
    outcome = imae(*TRAIN, "--iterations", "1")
    assert outcome.status == 0
    assert outcome.err.count(line) == (digits / "out" / "digits.log").read_text().count(line) == 1
    net = (digits / "net.prototxt").read_text()
    (digits / "fit.prototxt").write_text(net.replace("batch_size: 20", "batch_size: 20 split: TRAIN"))
    weights = ("--weights", "out/digits_iter_1.caffemodel", "--iterations", "1", "--cpu")
    assert imae("test", "--model", "fit.prototxt", *weights).err.count(line) == 1
    assert imae("test", "--model", "net.prototxt", *weights).err.count("differ from the intact") == 0


def test_the_demo_says_what_share_of_the_labels_is_wrong(imae: Imae) -> None:
    assert "half of the labels are replaced at random, 42.7 % are then wrong" in " ".join(
        imae("demo", "--help").out.split()
    )


def test_an_lmdb_cut_while_it_trains_costs_no_finished_iteration(
    imae: Imae, enter: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, and a snapshot that ends as an uninterrupted run, running statistics and place in the data included."""

    def prepare(name: str) -> Path:
        folder = enter(name)
        data = 'type: "Data" top: "data" top: "label" data_param { source: "db" backend: LMDB batch_size: 4 }'
        norm = 'layer { name: "norm" type: "BatchNorm" bottom: "ip1" top: "ip1" }\n'
        net = (folder / "net.prototxt").read_text()
        net = re.sub(r'type: "DigitsData".*\n.*(?=transform_param)', data, net).replace(
            'layer { name: "relu"', norm + 'layer { name: "relu"'
        )
        (folder / "net.prototxt").write_text(net)
        solver = (folder / "solver.prototxt").read_text()
        (folder / "solver.prototxt").write_text(solver.replace("snapshot: 20", "iter_size: 2"))
        images, labels = load_digits(True)
        with lmdb.open(str(folder / "db"), map_size=2**24) as database, database.begin(write=True) as transaction:
            for i in range(300):
                datum = Datum(channels=1, height=8, width=8, data=images[i].numpy().tobytes(), label=int(labels[i]))
                transaction.put(b"%05d" % i, datum.SerializeToString())
        return folder

    folder = prepare("whole")
    assert imae(*TRAIN).status == 0
    whole = final(folder)
    folder = prepare("cut")
    file = folder / "db" / "data.mdb"
    content = file.read_bytes()
    at_iteration(30, lambda: os.truncate(file, 16384), monkeypatch)
    outcome = imae(*TRAIN)
    assert outcome.status == 1
    error = outcome.err.splitlines()[-1]
    found = re.fullmatch(
        r'imae: error: iteration (\d+): layer "data" \(Data\): db/data\.mdb: was cut while it was read: it has 16384 '
        r"bytes, and had \d+ when it was opened; resume with: "
        r"(imae train .* --snapshot out/digits_iter_(\d+)\.solverstate)",
        error,
    )
    assert found and found[1] == found[3] and 30 <= int(found[1]) < 60
    assert "Traceback" not in outcome.err
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    file.write_bytes(content)
    assert imae(*shlex.split(found[2])[1:]).status == 0
    assert final(folder) == whole


def test_results_are_overwritten_only_where_that_is_asked_for(imae: Imae, digits: Path) -> None:
    assert imae(*TRAIN, "--iterations", "45").status == 0
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    outcome = imae(*TRAIN)
    assert outcome.status == 1
    assert outcome.err == (
        "imae: error: out/digits: holds results of a training (digits_iter_45.solverstate and 6 more); --resume goes "
        "on from its newest snapshot, --overwrite removes them, --prefix puts the new ones elsewhere\n"
    )
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before
    assert imae(*TRAIN, "--overwrite", "--resume").status == 2
    assert imae(*TRAIN, "--overwrite", "--weights", "missing.caffemodel").status == 1
    assert set(before) <= {path.name for path in Path("out").iterdir()}, "a start that fails removes nothing"
    weights = "out/digits_iter_45.caffemodel"
    assert imae(*TRAIN, "--iterations", "20", "--overwrite", "--weights", weights).status == 0
    assert {path.name for path in Path("out").glob("*_iter_*")} == {
        "digits_iter_20.caffemodel",
        "digits_iter_20.solverstate",
    }
    assert [record["iteration"] for record in read_metrics("out/digits.metrics.jsonl")] == [0, 0, 10]


def test_a_state_from_elsewhere_overwrites_no_results(imae: Imae, digits: Path) -> None:
    for prefix in ("one/run", "other/run"):
        assert imae(*TRAIN, "--iterations", "20", "--prefix", prefix).status == 0
    outcome = imae(*TRAIN, "--iterations", "30", "--prefix", "one/run", "--snapshot", "other/run_iter_20.solverstate")
    assert outcome.status == 1 and "one/run: holds results of a training" in outcome.err
    assert imae(*TRAIN, "--iterations", "30", "--prefix", "one/run", "--resume").status == 0


def test_two_trainings_do_not_share_a_prefix(imae: Imae, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the lock of one that was killed does not block the next."""
    monkeypatch.setattr("imae.solvers.run_lock._PATIENCE", 0.0)
    code = """
import sys, time
from imae.cli import main, progress
def advance(self, what, done, total):
    if (what, done) == ("train", 2):
        print("under way", flush=True)
        time.sleep(60)
progress.Display.advance = advance
main()
"""
    command = [sys.executable, "-c", code, *TRAIN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
        assert other.stdout and other.stdout.readline() == b"under way\n"
        before = Path("out/digits.log").read_bytes()
        for more in ((), ("--resume",), ("--overwrite",)):
            outcome = imae(*TRAIN, *more)
            assert outcome.status == 1
            assert outcome.err.startswith("imae: error: out/digits: another training writes its log, metrics and")
        assert Path("out/digits.log").read_bytes() == before
        other.kill()
    assert Path("out/digits.lock").exists()
    assert imae(*TRAIN, "--resume").status == 0
    assert not Path("out/digits.lock").exists()


def test_divergence_ends_with_status_1_and_names_the_last_sound_snapshot(imae: Imae, digits: Path) -> None:
    """Which may be resumed from; the summary never shows an accuracy of a diverged net alone."""
    assert imae(*TRAIN, "--iterations", "20").status == 0
    sound = Path("out/digits_iter_20.caffemodel").read_bytes()
    outcome = imae(*TRAIN, "--resume", "--set", "base_lr=1e30", "--set", "test_interval=1000")
    assert outcome.status == 1
    error = outcome.err.splitlines()[-1]
    assert re.fullmatch(
        r'imae: error: iteration 2\d: output "loss" is (nan|inf), first seen in .* of layer "\w+", at learning rate '
        r"1e\+30: the training diverged; the last sound snapshot is out/digits_iter_20\.solverstate",
        error,
    )
    assert "Done" not in outcome.out
    assert Path("out/digits_iter_20.caffemodel").read_bytes() == sound
    assert {path.name for path in Path("out").glob("*.solverstate")} == {"digits_iter_20.solverstate"}
    outcome = imae(*TRAIN, "--resume", "--set", "base_lr=1e30", "--on-divergence", "warn", "--set", "test_interval=30")
    assert outcome.status == 0
    assert outcome.err.count("imae: warning: iteration 2") == 1
    assert "loss = not finite" in outcome.out
    assert {path.name for path in Path("out").glob("*.solverstate")} == {"digits_iter_20.solverstate"}


def test_the_best_and_the_final_accuracy_are_told_and_the_best_weights_kept(
    imae: Imae, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After resuming, too: what was best before is not overwritten by what is worse."""
    options = ("--set", "test_interval=10", "--keep-best", "--set", "base_lr=0.2")
    outcome = imae(*TRAIN, *options)
    assert outcome.status == 0
    tests = [r for r in read_metrics("out/digits.metrics.jsonl") if r["phase"] == "test"]
    best = max(tests, key=lambda r: r["accuracy"])
    line = (
        f"Test net #0: accuracy was best at iteration {best['iteration']} ({best['accuracy']:g}), and is "
        f"{tests[-1]['accuracy']:g} at the end, iteration 60\n"
    )
    assert line in outcome.out and f"] {line}" in outcome.err
    assert "out/digits_best.caffemodel" in outcome.out
    about = json.loads(Path("out/digits_best.json").read_bytes())
    assert about == {"iteration": best["iteration"], "output": "accuracy", "value": best["accuracy"]}
    kept = Path("out/digits_best.caffemodel").read_bytes()
    score = imae("test", "--model", "net.prototxt", "--weights", "out/digits_best.caffemodel", "--iterations", "25")
    assert score.status == 0
    worse = ("--set", "base_lr=0", "--iterations", "80", "--resume")
    outcome = imae(*TRAIN, *options[:3], *worse)
    assert f"best at iteration {best['iteration']} (" in outcome.out
    assert Path("out/digits_best.caffemodel").read_bytes() == kept
    assert imae(*TRAIN, "--iterations", "5", "--overwrite", "--set", "test_interval=1000").status == 0
    assert not Path("out/digits_best.caffemodel").exists()


def test_the_best_weights_of_a_killed_run_are_those_of_an_uninterrupted_one(
    imae: Imae, enter: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--set", "test_interval=10", "--keep-best")
    files = []
    for name in ("whole", "stopped"):
        folder = enter(name)
        if name == "stopped":
            with monkeypatch.context() as patch:
                at_iteration(29, lambda: signal.raise_signal(signal.SIGINT), patch)
                assert imae(*TRAIN, *options).status == 130
            Path("out/digits_best.json").write_text("[")
            assert imae(*TRAIN, *options, "--resume").status == 0
        else:
            assert imae(*TRAIN, *options).status == 0
        files.append((folder / "out" / "digits_best.caffemodel").read_bytes())
    assert files[0] == files[1]


def test_train_and_test_tell_the_accuracy_of_each_class_over_batches_and_over_all_images(
    imae: Imae, digits: Path
) -> None:
    """The summary has outputs of many values, too, or says where they are."""
    net = Path("net.prototxt").read_text().replace('top: "accuracy"', 'top: "accuracy" top: "by_class"')
    Path("net.prototxt").write_text(net.replace("batch_size: 20", "batch_size: 4"))
    outcome = imae(*TRAIN, "--set", "test_interval=60", "--set", "test_initialization=false")
    (record,) = (r for r in read_metrics("out/digits.metrics.jsonl") if r["phase"] == "test")
    for name in ("by_class", "by_class_over_all_images"):
        values = " ".join("nan" if value is None else f"{value:g}" for value in record[name])
        assert f"Test net #0 at iteration 60: {name}: {values}\n" in outcome.out
    weights = ("--weights", "out/digits_iter_60.caffemodel", "--iterations", "5")
    outcome = imae("test", "--model", "net.prototxt", *weights)
    lines = [line for line in outcome.out.splitlines() if line.startswith("by_class")]
    for place, (line, mean, true) in enumerate(
        zip(lines, record["by_class"], record["by_class_over_all_images"], strict=True)
    ):
        more = "it has no image" if true is None else f"over all images {true:g}"
        assert line == f"by_class = {mean:g} (class {place}, mean over batches as in Caffe; {more})"
    assert record["by_class"] != record["by_class_over_all_images"]
    Path("net.prototxt").write_text(Path("net.prototxt").read_text().replace("num_output: 10", "num_output: 30"))
    outcome = imae(*TRAIN, "--overwrite", "--iterations", "0", "--set", "test_interval=1")
    assert "Test net #0 at iteration 0: by_class: 30 values, in out/digits.metrics.jsonl\n" in outcome.out


def test_keeping_the_best_needs_an_accuracy(imae: Imae, digits: Path) -> None:
    net = Path("net.prototxt").read_text()
    Path("net.prototxt").write_text("".join(line for line in net.splitlines(True) if "Accuracy" not in line))
    outcome = imae(*TRAIN, "--keep-best")
    assert outcome.status == 1
    assert "--keep-best needs a test net with an Accuracy layer" in outcome.err
