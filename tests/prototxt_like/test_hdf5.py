"""Caffe's snapshots in HDF5: files as Caffe writes them are read, ours are what Caffe reads, damaged ones are told."""

import ctypes
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import caffe_hdf5
import h5py
import numpy as np
import pytest

from imae.prototxt_like import hdf5
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import ImaeProvenance, ImaeState, SolverState

rng = np.random.default_rng(0)
WEIGHT, BIAS = rng.standard_normal((4, 3), np.float32), rng.standard_normal(4, np.float32)
OLD = rng.standard_normal((1, 1, 4, 3), np.float32)
PROVENANCE = ImaeProvenance(version="1.2", random_seed=7, net_sha256="ab", solver_sha256="cd")


def arrays(stored: Any) -> dict[str, list[Any]]:
    """A layer's arrays, None for those that are another layer's."""
    return {
        layer.name: [stored.array(blob, layer.name) if blob.ByteSize() else None for blob in layer.blobs]
        for layer in stored.message.layer
    }


def assert_same(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    assert sorted(found) == sorted(expected)
    for name, blobs in expected.items():
        assert len(found[name]) == len(blobs)
        for ours, theirs in zip(found[name], blobs, strict=True):
            if theirs is None:
                assert ours is None
            else:
                assert (ours.shape, ours.tobytes()) == (theirs.shape, theirs.tobytes())


@pytest.fixture(scope="module")
def library() -> Any:
    """The part of the HDF5 library that Caffe calls."""
    found = list((Path(h5py.__file__).parents[1] / "h5py.libs").glob("libhdf5_hl*.so*"))
    if not found:
        pytest.skip("this h5py brings no libhdf5_hl")
    return ctypes.CDLL(str(found[0]))


def place(of: Any) -> Any:
    return ctypes.c_int64(of.id.id)


def dims(shape: tuple[int, ...]) -> Any:
    return (ctypes.c_uint64 * len(shape))(*shape)


def test_what_these_tests_take_for_caffes_calls_makes_the_same_bytes(library: Any, tmp_path: Path) -> None:
    if (late := time.time() % 1) > 0.7:  # the second is in the files
        time.sleep(1 - late)
    with h5py.File(tmp_path / "theirs", "w") as file:
        for name, array in ("0", WEIGHT), ("1", BIAS), ("2", np.float32(3)):
            pointer = np.ascontiguousarray(array).ctypes.data_as(ctypes.c_void_p)
            shape = array.shape
            assert library.H5LTmake_dataset_float(place(file), name.encode(), len(shape), dims(shape), pointer) >= 0
        assert library.H5LTmake_dataset_int(place(file), b"iter", 1, dims((1,)), ctypes.byref(ctypes.c_int(5))) >= 0
        assert library.H5LTmake_dataset_string(place(file), b"learned_net", b"net.caffemodel.h5") >= 0
    with h5py.File(tmp_path / "these", "w") as file:
        for name, array in ("0", WEIGHT), ("1", BIAS), ("2", np.float32(3)):
            caffe_hdf5.make_floats(file, name, array)
        caffe_hdf5.make_int(file, "iter", 5)
        caffe_hdf5.make_string(file, "learned_net", "net.caffemodel.h5")
    assert (tmp_path / "these").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_ours_are_what_caffes_calls_read(library: Any, tmp_path: Path) -> None:
    hdf5.write_hdf5_weights(tmp_path / "w.h5", {"ip": [(WEIGHT, None), (BIAS, None)], "relu": []}, PROVENANCE)
    state = SolverState(iter=5, learned_net="w.h5", current_step=2, imae_state=ImaeState(random_seed=3))
    hdf5.write_hdf5_state(tmp_path / "s.h5", state, [WEIGHT])
    with h5py.File(tmp_path / "w.h5") as file:
        group = file["data/ip"]
        assert [list(found) for found in (file, file["data"], group)] == [["data"], ["ip", "relu"], ["0", "1"]]
        for name, array in ("0", WEIGHT), ("1", BIAS):
            rank = ctypes.c_int()
            assert library.H5LTfind_dataset(place(group), name.encode()) == 1
            assert library.H5LTget_dataset_ndims(place(group), name.encode(), ctypes.byref(rank)) >= 0
            shape, kind, found = (ctypes.c_uint64 * rank.value)(), ctypes.c_int(), np.empty_like(array)
            assert library.H5LTget_dataset_info(place(group), name.encode(), shape, ctypes.byref(kind), None) >= 0
            assert (tuple(shape), kind.value) == (array.shape, 1)  # H5T_FLOAT
            pointer = found.ctypes.data_as(ctypes.c_void_p)
            assert library.H5LTread_dataset_float(place(group), name.encode(), pointer) >= 0
            np.testing.assert_array_equal(found, array)
    with h5py.File(tmp_path / "s.h5") as file:
        number, text, size = ctypes.c_int(), ctypes.create_string_buffer(b"x" * 40), ctypes.c_size_t()
        for name, value in (b"iter", 5), (b"current_step", 2):
            assert library.H5LTread_dataset_int(place(file), name, ctypes.byref(number)) >= 0
            assert number.value == value
        assert library.H5LTget_dataset_info(place(file), b"learned_net", None, None, ctypes.byref(size)) >= 0
        assert library.H5LTread_dataset_string(place(file), b"learned_net", text) >= 0
        assert (text.value, size.value) == (b"w.h5", 5)
        assert sorted(file["history"]) == ["0"]


def test_weights_as_caffe_writes_them_are_read(tmp_path: Path) -> None:
    layers = {"a": [WEIGHT, BIAS], "b": [OLD, BIAS], "relu": [], "s": [np.float32(2)]}
    caffe_hdf5.write_weights(tmp_path / "w.h5", layers, shared=[("b", 1), ("a", 0)])
    layers |= {"a": [None, BIAS], "b": [OLD]}
    assert_same(arrays(hdf5.open_hdf5_weights(tmp_path / "w.h5")), layers)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_come_back_bit_for_bit_with_diffs_and_nested_names(dtype: type, tmp_path: Path) -> None:
    layers = {
        "inception/1x1": [(WEIGHT, WEIGHT * 3), (BIAS, BIAS)],
        "inception": [(OLD, OLD * 2)],
        "inception/pool/proj": [(np.empty((0, 3), np.float32), np.empty((0, 3), np.float32))],
        "ä b": [(None, BIAS), (BIAS, BIAS)],
        "data": [],
    }
    layers = {
        name: [tuple(None if x is None else x.astype(dtype) for x in blob) for blob in blobs]
        for name, blobs in layers.items()
    }
    hdf5.write_hdf5_weights(tmp_path / "w.h5", layers, PROVENANCE)
    stored = hdf5.open_hdf5_weights(tmp_path / "w.h5")
    assert stored.message.imae_provenance == PROVENANCE
    assert_same(arrays(stored), {name: [data for data, _ in blobs] for name, blobs in layers.items()})
    for layer in stored.message.layer:
        for blob, (data, diff) in zip(layer.blobs, layers[layer.name], strict=True):
            if data is not None:
                np.testing.assert_array_equal(stored.array(blob, "x", diff=True), diff)


def test_values_that_do_not_lie_in_the_file_as_they_are_are_converted(tmp_path: Path) -> None:
    expected = np.arange(12, dtype=np.float32).reshape(4, 3)
    kinds = {"half": np.float16, "whole": np.int16, "swapped": ">f4", "double": np.float64}
    for name, options in ("plain", {}), ("packed", {"compression": "gzip", "chunks": (2, 3)}):
        for userblock in 0, 512:
            with h5py.File(tmp_path / "w.h5", "w", userblock_size=userblock) as file:
                for kind, dtype in kinds.items():
                    file.create_dataset(f"data/{name}/{kind}/0", data=expected.astype(dtype), **options)
            found = arrays(hdf5.open_hdf5_weights(tmp_path / "w.h5"))
            double = [expected.astype(np.float64)]
            assert_same(found, {f"{name}/{kind}": double if kind == "double" else [expected] for kind in kinds})


@pytest.mark.parametrize("name", ["", ".", "a/./b", "/a", "a/", "a//b", "a\0b", "conv/1"])
def test_names_that_hdf5_does_not_keep_apart_are_refused(name: str, tmp_path: Path) -> None:
    layers = {"conv": [(WEIGHT, None), (BIAS, None)], name: [(BIAS, None)]}
    with pytest.raises(InputError, match=r"cannot be kept in HDF5: .*; rename it$"):
        hdf5.write_hdf5_weights(tmp_path / "w.h5", layers)
    assert not list(tmp_path.iterdir())
    hdf5.write_hdf5_weights(tmp_path / "w.h5", layers | {name: []})
    assert list(arrays(hdf5.open_hdf5_weights(tmp_path / "w.h5"))) == ["conv"]


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    ours = ImaeState(random_seed=7, recent_losses=[1.5, 2.5], test_forwards=[1, 2], provenance=PROVENANCE)
    state = SolverState(iter=10, learned_net="ordner/netz ä.h5", current_step=3, imae_state=ours)
    history = [WEIGHT, BIAS.astype(np.float64), *(BIAS + i for i in range(12))]
    hdf5.write_hdf5_state(tmp_path / "s.h5", state, history)
    stored = hdf5.open_hdf5_state(tmp_path / "s.h5")
    for blob, array in zip(stored.message.history, history, strict=True):
        np.testing.assert_array_equal(stored.array(blob, "x"), array)
    stored.message.ClearField("history")
    assert stored.message == state


def links(write: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            write(file)

    return damage


def replace(name: str, value: Any) -> Callable[[Path], None]:
    def write(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return links(write)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"text"), "is no HDF5 file that can be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-50]), "is no HDF5 file that can be read: .*truncated"),
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (replace("data", None), 'expected a caffemodel in HDF5, with the group "data"; the file is empty'),
        (replace("data", WEIGHT), 'expected a caffemodel in HDF5, with the group "data"; there are data'),
        (replace("data", h5py.SoftLink("/data")), 'with the group "data"'),
        (replace("data/ip", WEIGHT), '"/data/ip" is no blob of a layer, expected data/LAYER/INDEX'),
        (replace("data/ip/1", "text"), "holds values of type object, expected real numbers"),
        (replace("data/ip/1", h5py.ExternalLink("/etc/passwd", "/x")), "is kept in another file, /etc/passwd"),
        (replace("data/ip/1", h5py.SoftLink("/nowhere")), "cannot be read"),
        (links(lambda file: file.create_dataset("data/ip/weight", data=WEIGHT)), '"/data/ip/weight" is no blob'),
        (links(lambda file: file.create_dataset("data/ip/4000", data=WEIGHT)), '"/data/ip/4000" is no blob'),
        (links(lambda file: file["data/ip"].__setitem__("in", file["data"])), "a group that has another name, too"),
        (links(lambda file: file.create_dataset("data/b/0", (2**20, 2**20), "f4")), "cannot be read: .* has 0 bytes"),
        (
            links(lambda file: file.create_dataset("data/b/0", (2**15, 2**15), "f4", chunks=(2, 2))),
            "cannot be read: .* has 0 bytes",
        ),
        (links(lambda file: file.attrs.__setitem__("imae_provenance", "a: b")), "imae_provenance is damaged"),
        (links(lambda file: file.attrs.__setitem__("imae_provenance", 7)), "imae_provenance is damaged"),
    ],
)
def test_what_is_no_weights_is_said_in_one_line(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    hdf5.write_hdf5_weights(path, {"ip": [(WEIGHT, None), (BIAS, None)]}, PROVENANCE)
    damage(path)
    with pytest.raises(InputError, match=message) as error:
        hdf5.open_hdf5_weights(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-50]), "is no HDF5 file that can be read"),
        (replace("iter", None), 'expected a solverstate in HDF5, with the data set "iter"'),
        (replace("iter", np.float32(3)), '"iter" is not what a solverstate has there'),
        (replace("iter", np.array([1, 2])), '"iter" is not what a solverstate has there'),
        (replace("iter", np.array([-1])), "iter is -1, expected at least 0"),
        (replace("iter", np.array([2**40])), "cannot be read: .*1099511627776"),
        (replace("learned_net", np.bytes_(b"\xff\xfe")), "cannot be read: 'utf-8'"),
        (replace("learned_net", "of a length that varies"), '"learned_net" is not what a solverstate has there'),
        (replace("learned_net", 3), '"learned_net" is not what a solverstate has there'),
        (replace("history", None), 'with the group "history"'),
        (replace("history/1", None), 'history "1" is missing'),
        (replace("imae_state", np.float32([1, 2])), '"imae_state" holds float32, expected bytes'),
        (replace("imae_state", np.uint8([255, 255, 255])), "cannot be read"),
    ],
)
def test_what_is_no_state_is_said_in_one_line(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    state = SolverState(iter=5, learned_net="w.h5", current_step=2, imae_state=ImaeState(random_seed=3))
    hdf5.write_hdf5_state(path, state, [BIAS, BIAS, BIAS])
    damage(path)
    with pytest.raises(InputError, match=message) as error:
        hdf5.open_hdf5_state(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_weights_and_states_given_for_one_another_are_named(tmp_path: Path) -> None:
    hdf5.write_hdf5_weights(tmp_path / "w.h5", {"ip": [(WEIGHT, None)]})
    hdf5.write_hdf5_state(tmp_path / "s.h5", SolverState(iter=1), [])
    with pytest.raises(InputError, match="expected a solverstate in HDF5, but it looks like weights"):
        hdf5.open_hdf5_state(tmp_path / "w.h5")
    with pytest.raises(InputError, match=r"expected a caffemodel in HDF5, .* looks like the state of a solver"):
        hdf5.open_hdf5_weights(tmp_path / "s.h5")


def test_a_file_that_cannot_be_written_whole_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    hdf5.write_hdf5_weights(path, {"ip": [(BIAS, None)]})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(InputError) as error:
            hdf5.write_hdf5_weights(path, {"ip": [(np.ones((1000, 1000), np.float32), None)]})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(error.value) == f"{path}: cannot be written: File too large"
    assert [found.name for found in tmp_path.iterdir()] == ["w.h5"]
    assert_same(arrays(hdf5.open_hdf5_weights(path)), {"ip": [BIAS]})
