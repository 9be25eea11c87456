"""Snapshots binary and in HDF5: each resumes to the same bits, is what Caffe reads, and says where it is from."""

import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

import imae
from imae.nets.net import Net
from imae.prototxt_like import schema
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TRAIN, ImaeProvenance
from imae.prototxt_like.text import parse_net
from imae.prototxt_like.weights import open_state, open_weights
from imae.solvers.results import is_at, newest_snapshot, remove_results, results_at
from imae.solvers.solver import Solver

NET = """
layer { name: "data" type: "DigitsData" top: "data" top: "label"
  digits_data_param { batch_size: 16 noise_rate: 0.2 } transform_param { mirror: true } }
layer { name: "block/hidden" type: "InnerProduct" bottom: "data" top: "hidden"
  inner_product_param { num_output: 8 weight_filler { type: "xavier" } } }
layer { name: "block" type: "PReLU" bottom: "hidden" top: "hidden" }
layer { name: "drop" type: "Dropout" bottom: "hidden" top: "hidden" }
layer { name: "ip" type: "InnerProduct" bottom: "hidden" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.05 momentum: 0.9 lr_policy: "step" gamma: 0.5 stepsize: 3 type: "Adam"
random_seed: 5 max_iter: 8 snapshot: 4 average_loss: 3 snapshot_diff: true
"""
HDF5 = "snapshot_format: HDF5"


def create(folder: Path, settings: str = "", net: str = NET, **options: Any) -> Solver:
    folder.mkdir(exist_ok=True)
    (folder / "net.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text(f'{SOLVER} snapshot_prefix: "{folder / "run"}" {settings}')
    return Solver(folder / "solver.prototxt", **options)


@pytest.mark.parametrize(("first", "then"), [("", HDF5), (HDF5, ""), (HDF5, HDF5)])
def test_a_run_resumed_in_any_form_ends_with_the_same_bits(first: str, then: str, tmp_path: Path) -> None:
    whole = create(tmp_path, first)
    whole.step(4)
    state = whole.state_path
    whole.solve()
    final = {path: path.read_bytes() for path in tmp_path.glob("run_iter_8*")}
    resumed = create(tmp_path, then)
    resumed.solve(state)
    assert resumed.iteration == whole.iteration == 8
    assert torch.equal(resumed.net.storage.data, whole.net.storage.data)
    for ours, theirs in zip(resumed.update.histories, whole.update.histories, strict=True):
        assert torch.equal(ours, theirs)
    if first == then:
        assert len(final) == 2 and all(path.read_bytes() == content for path, content in final.items())


def test_the_layout_in_hdf5_is_caffes_with_ours_in_what_it_passes_over(tmp_path: Path) -> None:
    create(tmp_path, HDF5).solve()
    with h5py.File(tmp_path / "run_iter_8.caffemodel.h5") as file:
        found: list[str] = []
        file.visit(found.append)
        layers = ["data", "block/hidden", "block", "drop", "ip", "loss"]
        blobs = ["block/hidden/0", "block/hidden/1", "block/0", "ip/0", "ip/1"]
        assert sorted(found) == sorted(f for g in ("data", "diff") for f in [g, *(f"{g}/{n}" for n in layers + blobs)])
        assert list(file.attrs) == ["imae_provenance"]
        assert all(file[f"{group}/{blob}"].dtype == "<f4" for group in ("data", "diff") for blob in blobs)
    with h5py.File(tmp_path / "run_iter_8.solverstate.h5") as file:
        assert sorted(file) == ["current_step", "history", "imae_state", "iter", "learned_net"]
        assert sorted(file["history"], key=int) == [str(i) for i in range(2 * 5)]
        assert (file["iter"][()].tolist(), file["iter"].dtype, file["current_step"][()].tolist()) == ([8], "<i4", [2])
        assert file["learned_net"][()].decode() == str(tmp_path / "run_iter_8.caffemodel.h5")


def caffes_schema() -> Any:
    """Caffe's own messages: ours without the fields that lie beyond its numbers, and without NVIDIA's."""
    (file,) = FileDescriptorSet.FromString(Path(schema.__file__).with_name("caffe.descriptor").read_bytes()).file
    for message in file.message_type:
        kept = [field for field in message.field if field.number < 9000 and not field.name.startswith("raw_")]
        del message.field[:]
        message.field.extend(kept)
    kept = [message for message in file.message_type if not message.name.startswith("Imae")]
    del file.message_type[:]
    file.message_type.extend(kept)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return lambda name: GetMessageClass(pool.FindFileByName(file.name).message_types_by_name[name])


def test_caffes_schema_reads_our_snapshots_and_lacks_nothing(tmp_path: Path) -> None:
    """Without what it does not know of, the snapshot resumes to what Caffe would do with it: the data start over."""
    trained, caffe = create(tmp_path), caffes_schema()
    trained.step(4)
    before = [trained.net.storage.data.clone(), *(history.clone() for history in trained.update.histories)]
    for kind, name in ("caffemodel", "NetParameter"), ("solverstate", "SolverState"):
        path = tmp_path / f"run_iter_4.{kind}"
        message = caffe(name).FromString(path.read_bytes())
        assert not message.FindInitializationErrors()
        message.DiscardUnknownFields()
        ours = getattr(schema, name).FromString(path.read_bytes())
        for field, _ in ours.ListFields():
            if field.number > 9000:
                ours.ClearField(field.name)
        for layer in getattr(ours, "layer", ()):
            layer.ClearField("digits_data_param")
        assert message.SerializeToString() == ours.SerializeToString()
        assert len(message.SerializeToString()) < path.stat().st_size
        path.write_bytes(message.SerializeToString())
    resumed = create(tmp_path)
    resumed.restore(tmp_path / "run_iter_4.solverstate")
    for ours, then in zip([resumed.net.storage.data, *resumed.update.histories], before, strict=True):
        assert torch.equal(ours, then)
    assert resumed.iteration == 4


def test_a_snapshot_in_hdf5_without_what_is_ours_resumes(tmp_path: Path) -> None:
    trained = create(tmp_path, HDF5)
    trained.step(4)
    with h5py.File(trained.state_path, "r+") as state, h5py.File(tmp_path / "run_iter_4.caffemodel.h5", "r+") as model:
        del state["imae_state"], model.attrs["imae_provenance"], model["diff"]
    resumed = create(tmp_path)
    resumed.restore(trained.state_path)
    assert torch.equal(resumed.net.storage.data, trained.net.storage.data) and resumed.iteration == 4


SHARED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
  inner_product_param { num_output: 3 bias_filler { type: "gaussian" } } }
layer { name: "c" type: "InnerProduct" bottom: "b" top: "c" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 3 } }
"""


def test_shared_blobs_are_written_once_as_hdf5_and_read_by_all_their_layers(tmp_path: Path) -> None:
    """As Caffe does: a data set for the owner alone, but every gradient."""
    net = Net(parse_net(SHARED), TRAIN, seed=1)
    net.write_weights(tmp_path / "w.h5", diffs=True)
    with h5py.File(tmp_path / "w.h5") as file:
        assert {name: list(group) for name, group in file["data"].items()} == {
            "data": [],
            "a": ["0", "1"],
            "b": ["1"],
            "c": [],
        }
        assert {name: list(group) for name, group in file["diff"].items()}["c"] == ["0", "1"]
    other = Net(parse_net(SHARED), TRAIN, seed=2)
    report = other.copy_weights(tmp_path / "w.h5")
    assert (report.copied, report.kept, report.unused) == (["a", "b"], [], [])
    assert torch.equal(other.storage.data, net.storage.data)
    alone = Net(parse_net(SHARED.replace('param { name: "w" }', "")), TRAIN)
    with pytest.raises(InputError, match=r'layer "b": has 2 blobs, .* has 1; to learn this layer'):
        alone.copy_weights(tmp_path / "w.h5")


@pytest.mark.parametrize("name", ["a//b", "ip/1"])
def test_names_that_hdf5_cannot_keep_are_told_before_training(name: str, tmp_path: Path) -> None:
    net = NET.replace('"block/hidden"', f'"{name}"')
    with pytest.raises(InputError, match=rf'snapshot_format HDF5: layer "{name}" cannot be kept in HDF5'):
        create(tmp_path, HDF5, net)
    create(tmp_path, "", net)


def test_a_snapshot_says_where_it_is_from(tmp_path: Path) -> None:
    for form in "", HDF5:
        solver = create(tmp_path, form)
        solver.step(4)
        net, file = ((tmp_path / f"{name}.prototxt").read_bytes() for name in ("net", "solver"))
        expected = ImaeProvenance(
            version=imae.__version__,
            random_seed=5,
            net_sha256=hashlib.sha256(net).hexdigest(),
            solver_sha256=hashlib.sha256(file).hexdigest(),
        )
        state = open_state(solver.state_path).message
        assert state.imae_state.provenance == expected
        assert open_weights(state.learned_net).message.imae_provenance == expected


def test_resuming_says_where_the_state_is_from_and_what_has_changed(tmp_path: Path) -> None:
    create(tmp_path).step(4)
    state, lines = tmp_path / "run_iter_4.solverstate", list[str]()
    create(tmp_path, show=lines.append).restore(state)
    (said,) = [line for line in lines if " is of " in line]
    assert f"{state} is of imae {imae.__version__}, seed 5, net sha256 " in said
    assert not [line for line in lines if "has changed" in line]
    create(tmp_path, net=f"# another\n{NET}", show=lines.append).restore(state)
    (said,) = [line for line in lines if "has changed" in line]
    then, now = (hashlib.sha256(text.encode()).hexdigest()[:12] for text in (NET, f"# another\n{NET}"))
    assert f"The net's prototxt has changed since {state} was written: its sha256 was {then}, and is {now}" in said


def test_results_of_either_form_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    create(tmp_path).step(4)
    create(tmp_path, f"{HDF5} test_iter: 1 test_interval: 4", keep_best=True).solve()
    prefix = str(tmp_path / "run")
    newest = newest_snapshot(prefix)
    assert newest == tmp_path / "run_iter_8.solverstate.h5"
    assert is_at(prefix, newest)
    open_weights(tmp_path / "run_best.caffemodel.h5")
    newest.write_bytes(newest.read_bytes()[:-100])
    (tmp_path / "run_iter_4.caffemodel.h5").unlink()
    assert newest_snapshot(prefix) == tmp_path / "run_iter_4.solverstate"
    assert "run_iter_8.solverstate.h5: is no HDF5 file" in caplog.text and "run_iter_4.caffemodel.h5" in caplog.text
    assert len(results_at(prefix)) == 2 + 1 + 3 + 2
    remove_results(prefix)
    assert {path.name for path in tmp_path.iterdir()} == {"net.prototxt", "solver.prototxt", "run.log"}


def test_a_shape_from_before_blobs_had_any_number_of_axes_fits(tmp_path: Path) -> None:
    weight, bias = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3), np.ones((1, 1, 1, 2), np.float32)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["data/ip/0"], file["data/ip/1"] = weight, bias
    text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } } layer { name: "ip" '
    net = Net(parse_net(f'{text} type: "InnerProduct" bottom: "x" top: "y" inner_product_param {{ num_output: 2 }} }}'))
    assert net.copy_weights(tmp_path / "w.h5").copied == ["ip"]
    np.testing.assert_array_equal(net.params["ip"][0].data, weight[0, 0])
