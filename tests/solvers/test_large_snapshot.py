"""A net of more weights than protobuf's files can hold."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

WIDTH = 24_000
NET = f"""
layer {{ name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param {{ shape {{ dim: 2 dim: {WIDTH} }} data_filler {{ type: "gaussian" std: 1 }} }} }}
layer {{ name: "in" type: "InnerProduct" bottom: "data" top: "in"
  inner_product_param {{ num_output: {WIDTH // 2} weight_filler {{ type: "constant" value: 0.01 }} }} }}
layer {{ name: "out" type: "InnerProduct" bottom: "in" top: "out"
  inner_product_param {{ num_output: {WIDTH} weight_filler {{ type: "constant" value: 0.01 }} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "target" top: "loss" }}
"""
SOLVER = """
net: "net.prototxt" base_lr: 1e-9 momentum: 0.9 lr_policy: "fixed" random_seed: 1 snapshot: 1 snapshot_prefix: "run"
"""
PROGRAM = """
import hashlib, sys, threading, time
from imae.solvers.solver import Solver

def memory():
    with open("/proc/self/status") as status:  # pages of files, which the system takes back, are not among it
        return int(dict(line.split(":") for line in status)["RssAnon"].split()[0]) * 1024 / 1e9

def watched(run, *arguments):
    peak, done, since = [memory()], threading.Event(), time.perf_counter()
    def watch():
        while not done.wait(0.02):
            peak.append(memory())
    thread = threading.Thread(target=watch)
    thread.start()
    run(*arguments)
    done.set()
    thread.join()
    seconds = time.perf_counter() - since
    print(f"{run.__name__}: {seconds:.1f} s, {max(peak) - peak[0]:.2f} GB more than the {peak[0]:.2f} before")

solver = Solver("solver.prototxt")
if sys.argv[1:]:
    watched(solver.restore, *sys.argv[1:])
else:
    solver.param.snapshot = 0
    solver.step(1)
    watched(solver.snapshot)
solver.param.snapshot = 0
solver.step(1)
digest = hashlib.sha256()
for tensor in (solver.net.storage.data, *solver.update.histories):
    digest.update(tensor.numpy())
print("weights and history", digest.hexdigest())
"""


@pytest.mark.slow
def test_a_net_of_over_two_gigabytes_snapshots_and_resumes_in_hdf5_without_a_second_copy(tmp_path: Path) -> None:
    """Two layers of 24,000 x 12,000 weights, 2.304 GB, and as much of history: 9 GB of memory, 5 GB of disk.

    What is allowed beside them is one of the two layers' 1.152 GB, and a little.
    """
    (tmp_path / "net.prototxt").write_text(NET)

    def run(*arguments: str) -> str:
        since = time.perf_counter()
        command = [sys.executable, "-c", PROGRAM, *arguments]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        print(f"{ended.stdout}{time.perf_counter() - since:.0f} s in all")
        return ended.stdout + ended.stderr

    (tmp_path / "solver.prototxt").write_text(SOLVER)
    assert "the caffemodel of a snapshot would have 2.15 GiB, but protobuf's files end at 2 GiB: snapshot_form" in run()
    (tmp_path / "solver.prototxt").write_text(f"{SOLVER} snapshot_format: HDF5")
    whole, resumed = run(), run("run_iter_1.solverstate.h5")
    assert (tmp_path / "run_iter_1.caffemodel.h5").stat().st_size > 2.3e9
    assert re.findall("weights and .*", whole) == re.findall("weights and .*", resumed) != []
    for output in whole, resumed:
        (more,) = re.findall(r"s, (\S+) GB more than", output)
        assert float(more) < 1.4, output
