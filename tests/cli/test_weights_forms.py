"""Weights and means in every form, where commands take them; and the commands that convert them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from imae.prototxt_like.binary import read_binaryproto
from imae.prototxt_like.schema import Datum

Imae = Callable[..., Any]
TRAIN = ("train", "--solver", "solver.prototxt", "--cpu")
FORMS = [".caffemodel", ".caffemodel.h5", ".npz", ".safetensors"]


@pytest.fixture
def trained(imae: Imae, digits: Path) -> Path:
    """The state of a training of 20 iterations."""
    assert imae(*TRAIN, "--iterations", "20").status == 0
    return Path("out/digits_iter_20.solverstate")


def test_every_command_takes_weights_in_every_form(imae: Imae, trained: Path) -> None:
    pytest.importorskip("safetensors", reason="the extra safetensors is not installed")
    told, source = set[str](), trained.with_suffix(".caffemodel").rename("source.caffemodel")
    for form in FORMS:
        done = imae("convert", "weights", source, f"w{form}")
        assert done.status == 0, done.err
        assert re.fullmatch(rf"Wrote w{form}: 2 layers, 4 blobs, 1210 values, of imae \S+, seed 7, net .*\n", done.out)
        weights, model = ("--weights", f"w{form}"), ("--model", "net.prototxt")
        said = imae("test", *model, *weights, "--iterations", "2", "--cpu").out
        commands = [
            ("features", *model, *weights, "--blob", "ip1", "--output", f"f{form}.npy", "--cpu"),
            ("time", *model, *weights, "--iterations", "1", "--cpu"),
            ("export", *model, *weights, "--output", "net.onnx", "--shape", "1x8x8", "--no-check"),
            ("check-gradients", "net.prototxt", *weights),
        ]
        for command in commands[: None if form == ".caffemodel.h5" else 1]:  # they read weights by one function
            assert imae(*command).status == 0, command
        begun = imae(*TRAIN, *weights, "--iterations", "5", "--overwrite")
        assert "Copied the weights of 2 layers from w" in begun.err, begun.err
        assert (f"] w{form} is of imae " in begun.err) == (form != ".npz")
        (loss,) = re.findall(r"Iteration 0 .*, loss = (.*)", begun.err)
        told.add(f"{said} {loss} {np.load(f'f{form}.npy').tobytes()!r}")
    assert len(told) == 1


def test_a_training_with_snapshots_in_hdf5_stops_and_resumes_to_the_same_end(imae: Imae, digits: Path) -> None:
    hdf5 = ("--set", "snapshot_format=HDF5", "--keep-best")
    whole = imae(*TRAIN, *hdf5)
    assert (whole.status, "Wrote out/digits.log" in whole.out) == (0, True)
    assert whole.out.endswith(
        "out/digits_iter_60.caffemodel.h5, out/digits_iter_60.solverstate.h5, out/digits_best.caffemodel.h5, "
        "out/digits_best.json\n"
    )
    assert "Snapshotting to HDF5 file out/digits_iter_60.caffemodel.h5" in whole.err
    assert "Snapshotting solver state to HDF5 file out/digits_iter_60.solverstate.h5" in whole.err
    last = sorted(Path("out").glob("*_60*"))
    expected = [path.read_bytes() for path in last]
    for path in last:
        path.unlink()
    assert imae(*TRAIN, *hdf5, "--resume").status == 0
    assert [path.read_bytes() for path in last] == expected


def test_another_net_than_the_states_is_told_of(imae: Imae, trained: Path) -> None:
    Path("net.prototxt").write_text(f"# changed\n{Path('net.prototxt').read_text()}")
    resumed = imae(*TRAIN, "--iterations", "25", "--snapshot", trained)
    assert f"The net's prototxt has changed since {trained} was written: its sha256 was " in resumed.err


@pytest.mark.parametrize("damage", ["cut", "foreign"])
@pytest.mark.parametrize("form", FORMS[1:])
def test_damaged_weights_are_one_line(imae: Imae, trained: Path, form: str, damage: str) -> None:
    path = Path(f"w{form}")
    if form == ".safetensors":
        pytest.importorskip("safetensors", reason="the extra safetensors is not installed")
    assert imae("convert", "weights", trained.with_suffix(".caffemodel"), path).status == 0
    path.write_bytes(path.read_bytes()[:-100] if damage == "cut" else b"no weights")
    outcome = imae("test", "--model", "net.prototxt", "--weights", path, "--iterations", "1")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1) and outcome.err.startswith(f"imae: error: {path}: ")


def test_the_mean_of_a_database_is_the_mean_of_its_images(imae: Imae, digits: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 5), np.uint8)
    with lmdb.open("db", map_size=2**20) as database, database.begin(write=True) as to:
        for i, image in enumerate(images):
            datum = Datum(channels=3, height=4, width=5, data=image.tobytes())
            to.put(f"{i}".encode(), datum.SerializeToString())
    for name in "mean.binaryproto", "mean.npy":
        done = imae("convert", "mean", "db", name)
        assert done.status == 0
        means = " ".join(f"{value:g}" for value in images.mean((0, 2, 3)))
        assert done.out == f"Wrote {name}: 3x4x5, the means of its channels {means}\n"
    expected = images.astype(np.float64).mean(0).astype(np.float32)
    np.testing.assert_array_equal(read_binaryproto("mean.binaryproto")[0], expected)
    np.testing.assert_array_equal(np.load("mean.npy"), expected)
    outputs = []
    np.savez("none.npz", **{"none/0": np.zeros(1)})
    for name in "mean.binaryproto", "mean.npy":
        Path("mean_net.prototxt").write_text(
            'layer { name: "d" type: "Data" top: "data" data_param { source: "db" backend: LMDB batch_size: 6 } '
            f'transform_param {{ mean_file: "{name}" }} }}'
        )
        outputs.append(
            imae(
                "features",
                "--model",
                "mean_net.prototxt",
                "--weights",
                "none.npz",
                "--blob",
                "data",
                "--output",
                f"{name}.out.npy",
                "--cpu",
            )
        )
    assert outputs[0].status == outputs[1].status == 0, outputs[0].err
    found = [np.load(f"{name}.out.npy") for name in ("mean.binaryproto", "mean.npy")]
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], (images - expected).reshape(6, -1), atol=1e-5)


def test_a_database_of_images_of_several_shapes_has_no_mean(imae: Imae, digits: Path) -> None:
    with lmdb.open("db", map_size=2**20) as database, database.begin(write=True) as to:
        for i in (1, 2):
            to.put(f"{i}".encode(), Datum(channels=1, height=1, width=i, data=bytes(i)).SerializeToString())
    outcome = imae("convert", "mean", "db", "mean.npy")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert 'db: record "2" is an image of 1x1x2, the first one of 1x1x1' in outcome.err
