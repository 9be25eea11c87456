"""What `imae train --record-samples` keeps is what the net computes of each training sample, test by test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from imae.experiments.sample_picture import shares
from imae.layers.data.digits_data import load_digits
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_solver
from imae.solvers.solver import Solver
from imae.solvers.training_samples import TrainingSamples, read_sample_record

Imae = Callable[..., Any]
TRAIN = ("train", "--solver", "solver.prototxt", "--cpu", "--record-samples", "--set", "test_interval=20")
RECORD = Path("out/digits.samples.npz")


def test_each_test_keeps_every_samples_probability_and_weight(imae: Imae, digits: Path) -> None:
    outcome = imae(*TRAIN)
    assert outcome.status == 0 and str(RECORD) in outcome.out
    record = read_sample_record(RECORD)
    solver = Solver("solver.prototxt")
    count = len(load_digits(True)[0])
    assert record["label"].shape == record["intact"].shape == (count,)
    assert record["iteration"].tolist() == [0, 20, 40, 60]
    assert (record["label"] != record["intact"]).mean() == pytest.approx(0.18, abs=0.03)
    solver.net.copy_weights("out/digits_iter_60.caffemodel")
    scores = torch.cat([batch.scores for batch in TrainingSamples(solver)])
    p_y = torch.softmax(scores, 1)[torch.arange(count), torch.tensor(record["label"])]
    np.testing.assert_allclose(record["p_y"][-1], p_y, atol=1e-6)
    np.testing.assert_allclose(record["weight"][-1], 2 * (1 - p_y), atol=1e-5)


def test_a_resumed_training_ends_with_the_same_record(imae: Imae, enter: Callable[[str], Path]) -> None:
    enter("uninterrupted")
    assert imae(*TRAIN).status == 0
    expected = read_sample_record(RECORD.absolute())
    enter("resumed")
    assert imae(*TRAIN, "--iterations", 40).status == 0
    assert imae(*TRAIN, "--snapshot", "out/digits_iter_20.solverstate").status == 0
    found = read_sample_record(RECORD)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_the_record_is_of_this_training(imae: Imae, digits: Path) -> None:
    assert imae(*TRAIN, "--iterations", 20).status == 0
    assert "digits.samples.npz" not in imae(*TRAIN).out
    RECORD.write_bytes(RECORD.read_bytes()[:-100])
    outcome = imae(*TRAIN, "--resume")
    assert outcome.status == 1 and len(outcome.err.splitlines()[-1:]) == 1 and str(RECORD) in outcome.err
    outcome = imae("train", "--solver", "solver.prototxt", "--cpu", "--overwrite")
    assert outcome.status == 0 and not RECORD.exists()


def test_samples_of_a_list_of_rows_are_read_in_order(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["data"], file["label"] = np.arange(14, dtype=np.float32).reshape(7, 2) / 10, np.arange(7) % 2
    (tmp_path / "list.txt").write_text(f"{tmp_path}/rows.h5\n")
    layer = (
        'layer {{ name: "data" type: "HDF5Data" top: "data" top: "label" include {{ phase: {} }} '
        'hdf5_data_param {{ source: "list.txt" batch_size: 3 shuffle: {} noise_kind: SYMMETRIC noise_rate: 1 }} }}'
    )
    net = layer.format("TRAIN", "true") + layer.format("TEST", "false")
    net += 'layer { name: "z" type: "InnerProduct" bottom: "data" top: "z" inner_product_param { num_output: 2 } }'
    net += 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "z" bottom: "label" top: "loss" }'
    settings = "lr_policy: 'fixed' base_lr: 0.1 max_iter: 1 test_iter: 1 test_interval: 1 random_seed: 1"
    solver = Solver(parse_solver(f"net_param {{ {net} }} {settings}"), folder=tmp_path)
    (batch,) = TrainingSamples(solver)
    weights, bias = (blob.data for blob in solver.net.params["z"])
    rows = torch.arange(14.0).view(7, 2) / 10
    torch.testing.assert_close(batch.scores, rows @ weights.T + bias)
    assert batch.intact is not None and batch.intact.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert len(batch.label) == 7


def test_a_net_without_such_data_is_refused() -> None:
    net = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
    net += 'layer { name: "l" type: "EuclideanLoss" bottom: "x" bottom: "x" top: "l" }'
    solver = Solver(parse_solver(f"net_param {{ {net} }} lr_policy: 'fixed' base_lr: 0.1 max_iter: 1"))
    with pytest.raises(InputError, match=r"needs an image set, .*, to tell of training samples$"):
        TrainingSamples(solver)


def test_shares_count_each_sample_once() -> None:
    values = np.array([[0.0, 0.1, 0.9, 1.0, np.nan], [0.5, 0.5, 0.5, 2.0, np.nan]])
    np.testing.assert_array_equal(shares(values, np.array([0, 0.5, 1])), [[0.5, 0], [0.5, 1]])


def test_the_record_is_drawn(imae: Imae, digits: Path) -> None:
    assert imae(*TRAIN, "--iterations", 20).status == 0
    outcome = imae("plot", "samples", RECORD, "--output", "picture")
    assert outcome.status == 0 and outcome.out.split() == ["Wrote", "picture.png", "Wrote", "picture.svg"]
    assert b"corrupted labels" in Path("picture.svg").read_bytes()
    assert imae(*TRAIN, "--iterations", 1, "--prefix", "short").status == 0
    outcome = imae("plot", "samples", "short.samples.npz")
    assert outcome.status == 1 and "holds 1 tests, at least 2 are needed" in outcome.err
    Path("broken.npz").write_bytes(b"PK\x03\x04")
    outcome = imae("plot", "samples", "broken.npz")
    assert outcome.status == 1 and "broken.npz" in outcome.err and "\n" not in outcome.err.strip()
