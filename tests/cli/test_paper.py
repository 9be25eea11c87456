"""`imae retrieval`, `imae reproduce` and `imae tune-t`: what the paper evaluates, draws and chooses, from the shell."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imae.experiments.cell import About, Cell, Divergence, Result
from imae.experiments.mars_info import write_miniature
from imae.experiments.retrieval import average_features, evaluate
from imae.prototxt_like.files import write_atomically
from imae.prototxt_like.mars_info import read_query_index, read_tracks

Imae = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def mars(tmp_path: Path) -> Path:
    """A miniature MARS, with features for each test frame."""
    write_miniature(tmp_path / "mars")
    frames = int(read_tracks(tmp_path / "mars/info/tracks_test_info.mat").last.max())
    features = np.random.default_rng(3).normal(size=(frames, 8)).astype(np.float32)
    np.save(tmp_path / "frames.npy", features)
    return tmp_path


def test_retrieval_scores_features_of_frames_and_of_tracks_alike(imae: Imae, mars: Path) -> None:
    info = mars / "mars/info"
    tracks = read_tracks(info / "tracks_test_info.mat")
    of_tracks = average_features(np.load(mars / "frames.npy"), tracks.first, tracks.last)
    np.save(mars / "tracks.npy", of_tracks)
    query = read_query_index(info / "query_IDX.mat")
    expected = evaluate(of_tracks, tracks.person, tracks.camera, query)
    outcomes = [imae("retrieval", "--features", mars / f"{what}.npy", "--info", info) for what in ("frames", "tracks")]
    assert [outcome.status for outcome in outcomes] == [0, 0]
    assert outcomes[0].out == outcomes[1].out
    words = dict(line.rsplit(None, 1) for line in outcomes[0].out.splitlines()[1:5])
    assert float(words["mAP"]) == pytest.approx(100 * expected.map_trapezoid, abs=0.005)
    assert float(words["mAP, not interpolated"]) == pytest.approx(100 * expected.map_standard, abs=0.005)
    assert float(words["CMC-1"]) == pytest.approx(100 * expected.cmc[0], abs=0.005)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"no features"), "holds no array of numbers"),
        (lambda path: np.save(path, np.zeros((3, 4))), "has 3 rows of features"),
        (lambda path: np.save(path, np.array([{}])), "holds object values, expected numbers"),
        (lambda path: None, "cannot be read"),
    ],
)
def test_retrieval_refuses_features_that_do_not_fit(
    imae: Imae, mars: Path, write: Callable[[Path], None], message: str
) -> None:
    write(mars / "wrong.npy")
    outcome = imae("retrieval", "--features", mars / "wrong.npy", "--info", mars / "mars/info")
    assert outcome.status == 1
    assert message in outcome.err and outcome.err.count("\n") == 1


def test_reproduce_weights_gives_table_4_and_the_figures(imae: Imae, tmp_path: Path) -> None:
    outcome = imae("reproduce", "weights", "--output", tmp_path / "weights")
    assert outcome.status == 0, outcome.err
    row = next(line.split() for line in outcome.out.splitlines() if "T = 8" in line)
    assert row[-3:] == ["4.546085", "4.546085", "4.546"]
    assert len(list((tmp_path / "weights").glob("*.png"))) == 2


VERSIONS = {"python": "3", "imae": "1", "torch": "2", "numpy": "2"}


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    """Five images for training and one for testing, in the form of CIFAR-10's binary version."""
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        (folder / f"{name}.bin").write_bytes(bytes(1 + 3 * 32 * 32))
    return tmp_path / "data"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Instead of training, what was to be trained on: each cell that is asked for, and the labels."""
    asked: list[Any] = []

    def run_sweep(sweep: Any, cells: Any, *, command: str, labels: Any, **_: object) -> list[Result]:
        asked.extend([*cells, labels])
        sweep.output.mkdir(exist_ok=True)
        (sweep.output / "commands.txt").write_text(command)
        about = About(60.0, "device", 1, VERSIONS)
        metrics = [
            {"iteration": 4, "phase": "test", "accuracy": 0.5},
            {"iteration": 4, "phase": "training set", "corrupted": 0.25, "intact": 0.75},
        ]
        for cell in cells:
            sweep.folder(cell).mkdir(parents=True, exist_ok=True)
            (sweep.folder(cell) / "cell.metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in metrics))
        return [Result(cell, [4], [0.5], 0.25, 0.75, about, 0.25, 0.5) for cell in cells]

    monkeypatch.setattr("imae.experiments.sweep.run_sweep", run_sweep)
    return asked


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[Cell], bool]]:
    """Instead of training, a result or, where what is put into this list says so of the cell, a divergence."""
    diverges: list[Callable[[Cell], bool]] = []

    def run(processes: Any, cell: Cell) -> None:
        folder = processes._sweep.folder(cell)
        folder.mkdir(parents=True)
        if diverges[0](cell):
            divergence = Divergence(cell, "iteration 7: the loss is nan")
            write_atomically(folder / "diverged.json", json.dumps(asdict(divergence)).encode())
            return
        records = [
            {"iteration": 4, "phase": "test", "accuracy": 0.5},
            {"iteration": 4, "phase": "training set", "corrupted": 0.25, "intact": 0.75},
        ]
        write_atomically(folder / "cell.metrics.jsonl", "".join(json.dumps(r) + "\n" for r in records).encode())
        result = Result(cell, [4], [0.5], 0.25, 0.75, About(60.0, "device", 1, VERSIONS), 0.25, 0.5)
        write_atomically(folder / "result.json", json.dumps(asdict(result)).encode())

    monkeypatch.setattr("imae.experiments.sweep._Processes.run", run)
    return diverges


SMALL = ("--data", "data", "--output", "out", "--cpu", "--subset", "2")


@pytest.mark.parametrize(
    ("command", "page"),
    [
        (("reproduce", "table2", "--net", "20", "--noise", "50"), "table2"),
        (("reproduce", "figure3", "--net", "20", "--noise", "50"), "figure3"),
        (("tune-t", "--T", "4", "--T", "8", "--held-out", "1"), "tuning_resnet20_noise50"),
    ],
)
def test_a_cell_that_diverges_is_shown_as_diverged_and_the_command_ends_with_status_1(
    imae: Imae, cifar10: Path, monkeypatch: pytest.MonkeyPatch, diverging: Any, command: tuple[str, ...], page: str
) -> None:
    monkeypatch.chdir(cifar10.parent)
    diverging.append(lambda cell: cell.loss == "GCE" or (cell.loss == "IMAE" and cell.seed == 2 and cell.T != 4))
    outcome = imae(*command, "--seeds", "3", *SMALL)
    assert outcome.status == 1
    assert "iteration 7: the loss is nan; delete out/cells/resnet20_noise50_gce_" in outcome.err, outcome.err
    text = Path(f"out/{page}.md").read_text()
    assert re.search(r"GCE(, q = 0\.1)? \|.* diverged \|", text)
    assert re.search(r"IMAE.* \(1 of 3 seeds diverged\) \|.* \d\d\.0 ± 0\.0 \|", text)
    assert "## Diverged, and in no mean" in text and "Not finished" not in text


def test_where_all_cells_diverge_there_is_no_page(
    imae: Imae, cifar10: Path, monkeypatch: pytest.MonkeyPatch, diverging: Any
) -> None:
    monkeypatch.chdir(cifar10.parent)
    diverging.append(lambda cell: True)
    outcome = imae("tune-t", "--held-out", "1", *SMALL)
    assert outcome.status == 1 and not list(Path("out").glob("*.html"))
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("imae: error")]
    assert "all cells diverged; resnet20_noise50_imae_T0_" in line


@pytest.mark.parametrize(
    ("figure", "cells"),
    [
        ("figure3 --net 32 --noise 80 --loss imae", [Cell(32, 80, "IMAE", 1)]),
        ("figure4 --net 20 --noise 20 --loss CCE", [Cell(20, 20, "CCE", 1)]),
        ("figure6 --T 8", [Cell(20, 0, "IMAE", 1, T=8.0), Cell(20, 50, "IMAE", 1)]),
        ("figure7 --T 0", [Cell(20, 0, "IMAE", 1, T=0.0), Cell(20, 50, "IMAE", 1, T=0.0)]),
        ("figure8 --T 4", [Cell(20, 50, "IMAE", 1, T=4.0)]),
    ],
)
def test_each_figure_is_a_command_that_ends_in_its_page(
    imae: Imae, tmp_path: Path, trained: list[Any], figure: str, cells: list[Cell]
) -> None:
    outcome = imae("reproduce", *figure.split(), "--data", "data", "--output", tmp_path / "out", "--cpu")
    assert outcome.status == 0, outcome.err
    assert trained == [*cells, None]
    name = figure.split()[0]
    assert outcome.out.split() == [str(tmp_path / "out" / f"{name}.{suffix}") for suffix in ("html", "md")]
    options = (
        figure.removeprefix(name)
        .strip()
        .replace("--T 8", "--T 8.0")
        .replace("--T 4", "--T 4.0")
        .replace("--T 0", "--T 0.0")
    )
    command = f"imae reproduce {name} --data data --schedule paper --output {tmp_path / 'out'} --cpu {options}"
    assert command in (tmp_path / "out" / f"{name}.md").read_text()


def test_figure_2_needs_no_data(imae: Imae, tmp_path: Path) -> None:
    outcome = imae("reproduce", "figure2", "--output", tmp_path)
    assert outcome.status == 0 and (tmp_path / "figure2.svg").exists()


def test_tune_t_trains_the_grid_and_says_what_it_picks(imae: Imae, tmp_path: Path, trained: list[Any]) -> None:
    options = ["--noise", "0", "--held-out", "7", "--T", "4", "--T", "2", "--q", "0.5", "--cpu"]
    outcome = imae("tune-t", "--data", "data", "--output", tmp_path / "out", *options)
    assert outcome.status == 0, outcome.err
    general = {"noise": 0, "depth": 20, "seed": 1, "held_out": 7}
    grid = [Cell(loss="IMAE", T=T, **general) for T in (2.0, 4.0)] + [Cell(loss="GCE", q=0.5, **general)]
    assert trained == [*grid, {}]
    assert outcome.out.count("By the own labels of the images held out: IMAE, T = 2, test accuracy 50.0 %") == 1
    assert str(tmp_path / "out" / "tuning_resnet20_noise0.html") in outcome.out
    text = (tmp_path / "out" / "tuning_resnet20_noise0.md").read_text()
    assert "imae tune-t --data data --schedule paper" in text and "--noise 0 --held-out 7 --T 4.0 --T 2.0" in text


def test_tune_t_takes_labels_of_ones_own(imae: Imae, tmp_path: Path, cifar10: Path, trained: list[Any]) -> None:
    (tmp_path / "my labels.txt").write_text("1\n2\n3\n4\n5\n")
    options = ["--labels", tmp_path / "my labels.txt", "--T", "8", "--q", "0.7", "--held-out", "2", "--cpu"]
    outcome = imae("tune-t", "--data", cifar10, "--output", tmp_path / "out", *options)
    assert outcome.status == 0, outcome.err
    *cells, labels = trained
    assert {(cell.labels, cell.noise) for cell in cells} == {("my-labels.txt", 0)}
    assert labels["my-labels.txt"].tolist() == [1, 2, 3, 4, 5]
    (tmp_path / "my labels.txt").write_text("1\n2\n")
    outcome = imae("tune-t", "--data", cifar10, "--output", tmp_path / "out", *options)
    assert outcome.status == 1 and "expected 5 labels" in outcome.err and outcome.err.count("\n") == 1
    assert imae("tune-t", "--data", cifar10, "--labels", "x", "--noise", "0").status == 2


def test_reproduce_cifar10n_trains_on_each_label_set(
    imae: Imae, tmp_path: Path, cifar10: Path, trained: list[Any]
) -> None:
    names = ["clean_label", "aggre_label", "random_label1", "random_label2", "random_label3", "worse_label"]
    np.savez(tmp_path / "human.npz", **{name: np.arange(5) * (name == "worse_label") for name in names})
    options = ["--labels", tmp_path / "human.npz", "--loss", "IMAE", "--output", tmp_path / "out", "--cpu"]
    outcome = imae("reproduce", "cifar10n", "--data", cifar10, *options)
    assert outcome.status == 0, outcome.err
    *cells, labels = trained
    assert cells == [Cell(20, 0, "IMAE", 1, T=8, labels=name) for name in names[1:]]
    assert labels["worse_label"].tolist() == [0, 1, 2, 3, 4]
    row = next(line.split() for line in outcome.out.splitlines() if "worse_label" in line)
    assert row[:4] == ["ResNet-20", "worse_label", "80.0", "IMAE"]
    assert (tmp_path / "out" / "cifar10n.html").exists()


def test_reproduce_is_one_command_whose_options_fit_what_is_reproduced(imae: Imae, tmp_path: Path) -> None:
    outcome = imae("reproduce", "table1", "--data", "data", "--T", "8")
    assert outcome.status == 2 and "table1 takes no --T; it takes --cpu" in " ".join(outcome.err.split())
    assert imae("reproduce", "weights", "--jobs", "1").status == 2
    assert imae("reproduce", "figure2", "--net", "20", "--net", "32").status == 2
    outcome = imae("reproduce", "table9")
    assert outcome.status == 2 and "there is no table9; expected one of" in outcome.err
    assert imae("reproduce", "figure8", "--help").status == 0


@pytest.mark.parametrize(
    ("command", "missing"), [("table1", "--data"), ("cifar10n --data data", "--labels"), ("figure6", "--data")]
)
def test_what_reproduce_needs_and_is_not_given_is_named(imae: Imae, command: str, missing: str) -> None:
    outcome = imae("reproduce", *command.split(), "--cpu")
    assert outcome.status == 2 and f"needs {missing}" in outcome.err


def test_what_is_reproduced_may_be_spelled_with_an_underscore(imae: Imae, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = imae("reproduce", "digits_retrieval", "--output", tmp_path / "file")
    assert outcome.status == 1 and "cannot be created" in outcome.err
