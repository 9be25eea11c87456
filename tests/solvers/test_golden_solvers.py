"""Each update rule follows the trajectory that Caffe 1.0 recorded, and resumes from Caffe's own snapshots."""

from pathlib import Path

import numpy as np
import pytest
import torch
from caffe_hdf5 import as_hdf5
from layer_cases import DEVICES

from imae.layers.blob import Blob
from imae.prototxt_like.binary import open_solverstate
from imae.prototxt_like.text import parse_net, parse_solver
from imae.solvers.learning_rate import current_step, learning_rate
from imae.solvers.solver import Solver
from imae.solvers.update import UPDATES

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
RECORDS = [record for folder in ("solvers", "solvers_random") for record in sorted((GOLDEN / folder).glob("*.npz"))]
EVERY = pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.parent.name}/{record.stem}")


def create_solver(golden: np.lib.npyio.NpzFile, device: str = "cpu") -> Solver:
    param = parse_solver(str(golden["solver"]))
    param.ClearField("net")
    param.ClearField("snapshot")
    param.net_param.CopyFrom(parse_net(str(golden["net"])))
    return Solver(param, device=device)


def begin(golden: np.lib.npyio.NpzFile, device: str = "cpu") -> Solver:
    """The solver with the record's first weights."""
    solver = create_solver(golden, device)
    for layer, blobs in solver.net.params.items():
        for k, blob in enumerate(blobs):
            blob.data.copy_(torch.from_numpy(golden[f"init_{layer}_{k}"].reshape(blob.shape)))
    return solver


def train(solver: Solver, golden: np.lib.npyio.NpzFile, steps: range) -> None:
    data = {name: golden[name] for name in solver.net.inputs}
    for step in steps:
        solver.net.clear_diffs()
        losses = []
        for _ in range(solver.param.iter_size):
            solver.net.forward(**data)
            solver.net.backward()
            losses.append(float(solver.net.loss))
        assert np.mean(losses) == pytest.approx(float(golden["loss"][step]), rel=1e-3), f"loss of step {step}"
        solver.update.apply(learning_rate(solver.param, solver.iteration))
        solver.iteration += 1
        for layer, blobs in solver.net.params.items():
            for k, blob in enumerate(blobs):
                expected = golden[f"w_{step + 1}_{layer}_{k}"].reshape(blob.shape)
                if is_noise(solver, blob):
                    blob.data.copy_(torch.from_numpy(expected))
                largest = float(np.abs(expected).max())
                np.testing.assert_allclose(
                    blob.data.cpu(), expected, 1e-3, 1e-5 * largest, err_msg=f"{step} {layer} {k}"
                )


def is_noise(solver: Solver, blob: Blob) -> bool:
    """Whether what the rule makes of a blob is rounding, different with each library of linear algebra.

    The gradient of a bias before BatchNorm is 0 but for rounding, which all rules magnify that divide by its size.
    It is taken from the record, so that the running mean, which it adds to, can be compared.
    """
    return solver.param.type not in ("SGD", "Nesterov") and blob is solver.net.params["conv1"][1]


def test_there_are_records_of_every_rule() -> None:
    assert len(RECORDS) >= 10 + 12
    assert {parse_solver(str(np.load(record)["solver"])).type for record in RECORDS} == set(UPDATES)


@pytest.mark.parametrize("device", DEVICES)
@EVERY
def test_ten_steps(record: Path, device: str) -> None:
    golden = np.load(record)
    train(begin(golden, device), golden, range(10))


@pytest.mark.parametrize("form", ["binary", "HDF5"])
@EVERY
def test_resumes_from_caffes_snapshot_at_step_5(record: Path, form: str, tmp_path: Path) -> None:
    golden, state = np.load(record), record.with_name(f"{record.stem}_iter_5.solverstate")
    solver = create_solver(golden)
    solver.restore(state if form == "binary" else as_hdf5(state, tmp_path))
    assert solver.iteration == 5
    train(solver, golden, range(5, 10))


@EVERY
def test_histories_after_five_steps_are_those_of_caffes_snapshot(record: Path) -> None:
    """In Caffe's order, those of weights with lr_mult 0 among them."""
    golden = np.load(record)
    solver = begin(golden)
    train(solver, golden, range(5))
    stored = open_solverstate(record.with_name(f"{record.stem}_iter_5.solverstate"))
    assert current_step(solver.param, 4) == stored.message.current_step, "of the last update"
    recorded = iter(stored.message.history)
    for history in solver.update.histories:
        for i, blob in enumerate(solver.net.learnable):
            ours, caffes = solver.net.storage.view(history, blob), stored.array(next(recorded), "history")
            if not is_noise(solver, blob):
                np.testing.assert_allclose(ours, caffes, 1e-3, 1e-5 * float(history.abs().max()), err_msg=f"{i}")
    assert not list(recorded)
