"""Each update rule follows the trajectory that Caffe 1.0 recorded, and resumes from Caffe's own snapshots."""

from pathlib import Path

import numpy as np
import pytest
import torch

from imae.prototxt_like.text import parse_net, parse_solver
from imae.solvers.learning_rate import learning_rate
from imae.solvers.solver import Solver
from imae.solvers.update import UPDATES

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "solvers"
RULES = [
    record for record in sorted(GOLDEN.glob("*.npz")) if parse_solver(str(np.load(record)["solver"])).type in UPDATES
]


def create_solver(golden: np.lib.npyio.NpzFile) -> Solver:
    param = parse_solver(str(golden["solver"]))
    param.ClearField("net")
    param.ClearField("snapshot")
    param.net_param.CopyFrom(parse_net(str(golden["net"])))
    return Solver(param)


def train(solver: Solver, golden: np.lib.npyio.NpzFile, steps: range) -> None:
    data = {name: golden[name] for name in solver.net.inputs}
    for step in steps:
        solver.net.clear_diffs()
        solver.net.forward(**data)
        solver.net.backward()
        assert float(solver.net.loss) == pytest.approx(float(golden["loss"][step]), rel=1e-3), f"loss of step {step}"
        solver.update.apply(learning_rate(solver.param, solver.iteration))
        solver.iteration += 1
        for layer, blobs in solver.net.params.items():
            for k, blob in enumerate(blobs):
                expected = golden[f"w_{step + 1}_{layer}_{k}"]
                largest = np.abs(expected).max()
                np.testing.assert_allclose(blob.data, expected.reshape(blob.shape), 1e-3, 1e-5 * largest)


def test_all_records_of_known_rules_are_run() -> None:
    assert len(RULES) >= 7


@pytest.mark.parametrize("record", RULES, ids=lambda record: record.stem)
def test_ten_steps(record: Path) -> None:
    golden = np.load(record)
    solver = create_solver(golden)
    for layer, blobs in solver.net.params.items():
        for k, blob in enumerate(blobs):
            blob.data.copy_(torch.from_numpy(golden[f"init_{layer}_{k}"].reshape(blob.shape)))
    train(solver, golden, range(10))


@pytest.mark.parametrize("record", RULES, ids=lambda record: record.stem)
def test_resumes_from_caffes_snapshot_at_step_5(record: Path) -> None:
    golden = np.load(record)
    solver = create_solver(golden)
    solver.restore(record.with_name(f"{record.stem}_iter_5.solverstate"))
    assert solver.iteration == 5
    train(solver, golden, range(5, 10))
