"""Binary files: Caffe's own are read and written back, damaged and foreign ones are told from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from imae.prototxt_like.binary import (
    array_to_blob,
    blob_to_array,
    read_binaryproto,
    read_caffemodel,
    read_solverstate,
    unknown_fields,
    write_binaryproto,
    write_caffemodel,
    write_solverstate,
)
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import BlobProto, NetParameter

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SHARED = Path(__file__).resolve().parents[2] / "../shared/data/resnet20"
CAFFEMODEL = GOLDEN / "solvers/adam_iter_5.caffemodel"
SOLVERSTATE = GOLDEN / "solvers/adam_iter_5.solverstate"

needs_resnet20 = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")


def test_caffes_own_caffemodel_is_read_whole_and_written_the_same(tmp_path: Path) -> None:
    net = read_caffemodel(CAFFEMODEL)
    weights = {f"{layer.name}_{index}": blob_to_array(b) for layer in net.layer for index, b in enumerate(layer.blobs)}
    with np.load(GOLDEN / "solvers/adam.npz") as record:
        for name, weight in weights.items():
            np.testing.assert_array_equal(weight, record[f"w_5_{name}"])
    write_caffemodel(net, tmp_path / "again.caffemodel")
    assert read_caffemodel(tmp_path / "again.caffemodel") == net


@pytest.mark.parametrize("path", sorted((GOLDEN / "solvers").glob("*.solverstate")), ids=lambda path: path.stem)
def test_caffes_own_solverstates_are_written_back_byte_for_byte(path: Path, tmp_path: Path) -> None:
    state = read_solverstate(path)
    assert state.iter == 5
    write_solverstate(state, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@needs_resnet20
def test_the_real_resnet20_is_read_whole() -> None:
    net = read_caffemodel(SHARED / "cifar10_res20_iter_64000.caffemodel")
    arrays = [blob_to_array(blob) for layer in net.layer for blob in layer.blobs]
    batch_norm = sum(len(layer.blobs) for layer in net.layer if layer.type == "BatchNorm")
    assert batch_norm > 0
    assert all(np.isfinite(array).all() for array in arrays)
    assert arrays[0].shape == (16, 3, 3, 3)
    assert unknown_fields(net) == []


@needs_resnet20
def test_the_real_mean_image_is_read_and_written_back(tmp_path: Path) -> None:
    mean = read_binaryproto(SHARED / "mean.binaryproto")
    assert (mean.shape, mean.dtype) == ((1, 3, 32, 32), np.float32)
    assert 100 < mean.mean() < 140
    write_binaryproto(mean, tmp_path / "mean.binaryproto")
    np.testing.assert_array_equal(read_binaryproto(tmp_path / "mean.binaryproto"), mean)


arrays = npst.arrays(
    st.sampled_from([np.float32, np.float64]), npst.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)
)


@given(arrays, st.booleans())
def test_any_array_survives_a_blob_bit_for_bit(array: Any, with_diff: bool) -> None:
    diff = -array if with_diff else None
    blob = BlobProto.FromString(array_to_blob(array, diff).SerializeToString())
    for again, original in [
        (blob_to_array(blob), array),
        *([(blob_to_array(blob, diff=True), diff)] if with_diff else []),
    ]:
        assert (again.dtype, again.shape) == (original.dtype, original.shape) or original.size == 0
        assert again.tobytes() == original.tobytes()


@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3), np.float16([1, 2]), [[True, False]], 3, ">f4 [1]"])
def test_other_numbers_become_float32(array: Any) -> None:
    array = np.array([1.5], ">f4") if isinstance(array, str) else array
    again = blob_to_array(array_to_blob(array))
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, np.asarray(array))


def test_an_array_out_of_order_in_memory_is_stored_in_order() -> None:
    array = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[::-1]
    np.testing.assert_array_equal(blob_to_array(array_to_blob(array)), array)


def test_arrays_and_blobs_share_no_memory() -> None:
    source = np.ones(3, np.float32)
    blob = array_to_blob(source)
    source[0] = 5
    array = blob_to_array(blob)
    array[1] = 7
    assert blob_to_array(blob).tolist() == [1, 1, 1]


def test_the_old_four_dimensions_win_over_the_shape_as_in_caffe() -> None:
    blob = BlobProto(num=1, channels=2, height=1, width=3, data=range(6))
    assert blob_to_array(blob).shape == (1, 2, 1, 3)
    blob.shape.dim.extend([6])
    assert blob_to_array(blob).shape == (1, 2, 1, 3)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (BlobProto(shape={"dim": [2, 3]}, data=[1]), "conv1: the shape is 2 x 3, 6 values, but data holds 1"),
        (BlobProto(num=2, data=[1, 2]), "conv1: the shape is 2 x 0 x 0 x 0, 0 values, but data holds 2"),
        (BlobProto(), "conv1: the shape is a scalar, 1 values, but data holds 0"),
        (BlobProto(shape={"dim": [-1, -1]}, data=[1]), "conv1: the shape is -1 x -1"),
        (BlobProto(shape={"dim": [2**62, 2**62]}), "conv1: the shape is 4611686018427387904 x"),
    ],
)
def test_a_shape_that_does_not_fit_the_values_is_an_error(blob: BlobProto, message: str) -> None:
    with pytest.raises(InputError) as error:
        blob_to_array(blob, "conv1")
    assert str(error.value).startswith(message)


def test_a_diff_of_another_shape_is_an_error() -> None:
    with pytest.raises(InputError, match=r"the diff's shape \(2,\) is not the data's, \(3,\)"):
        array_to_blob(np.ones(3), np.ones(2))


def outcomes(read: Callable[[Path], Any], data: bytes, path: Path) -> dict[int, Any]:
    """What reading each proper prefix of `data` gives: a message, or the error's text."""
    found: dict[int, Any] = {}
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            found[length] = read(path)
        except InputError as error:
            assert "\n" not in str(error) and str(error).startswith(f"{path}: ")
            found[length] = str(error)
    return found


def test_a_solverstate_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    state = read_solverstate(SOLVERSTATE)
    state.imae_state.random_seed = 7
    state.imae_state.test_forwards.extend([1, 2])
    del state.history[2:]
    write_solverstate(state, tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    assert read_solverstate(tmp_path / "whole") == state
    for length, outcome in outcomes(read_solverstate, data, tmp_path / "cut").items():
        assert isinstance(outcome, str), length
        assert "cut short" in outcome or length < 2


def test_a_blob_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    write_binaryproto(np.arange(1.0, 13, dtype=np.float32).reshape(1, 3, 2, 2), tmp_path / "mean.binaryproto")
    data = (tmp_path / "mean.binaryproto").read_bytes()
    assert all(isinstance(o, str) for o in outcomes(read_binaryproto, data, tmp_path / "cut").values())


def test_a_caffemodel_cut_between_layers_gives_the_layers_before_the_cut_and_is_an_error_elsewhere(
    tmp_path: Path,
) -> None:
    whole = read_caffemodel(GOLDEN / "solvers/sgd_plain_iter_5.caffemodel")
    del whole.layer[5:]
    data = whole.SerializeToString()
    read = {n: net for n, net in outcomes(read_caffemodel, data, tmp_path / "cut").items() if not isinstance(net, str)}
    assert [list(net.layer) for net in read.values()] == [
        list(whole.layer)[:count] for count in range(1, len(whole.layer))
    ]


@pytest.mark.parametrize("read", [read_caffemodel, read_solverstate, read_binaryproto])
@given(data=st.data())
def test_no_damage_raises_anything_but_an_input_error_of_one_line(
    read: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray((CAFFEMODEL if read is read_caffemodel else SOLVERSTATE).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(200, len(content)) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try:
        read(path)
    except InputError as error:
        assert "\n" not in str(error)


FOREIGN = {
    "text": (b'name: "net"\nlayer { type: "ReLU" }\n', "it looks like text"),
    "empty": (b"", "it is empty (0 bytes)"),
    "png": (b"\x89PNG\r\n\x1a\n\0\0", "it looks like a PNG image"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "it looks like an HDF5 file (Caffe's snapshot_format: HDF5)"),
    "zip": (b"PK\x03\x04abc", "it looks like a zip archive"),
    "zeros": (bytes(5000), "it looks like a run of zero bytes"),
    "noise": (bytes(range(255, 0, -1)), "it is damaged or of another kind"),
    "umlauts": (("ä" * 3000).encode(), "it looks like text"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("read", [read_caffemodel, read_solverstate, read_binaryproto])
def test_a_file_of_another_kind_is_named(read: Callable[[Path], Any], kind: str, tmp_path: Path) -> None:
    data, clause = FOREIGN[kind]
    path = tmp_path / kind
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: expected a ")
    assert clause in str(error.value)
    assert f"{len(data)} bytes" in str(error.value)


def test_caffes_files_given_for_one_another_are_named(tmp_path: Path) -> None:
    blob = tmp_path / "mean.binaryproto"
    blob.write_bytes(BlobProto(num=1, channels=3, height=1, width=1, data=[1, 2, 3]).SerializeToString())
    files = {
        read_caffemodel: (CAFFEMODEL, "a caffemodel"),
        read_solverstate: (SOLVERSTATE, "a solverstate"),
        read_binaryproto: (blob, "a binaryproto"),
    }
    for read, (_, expected) in files.items():
        for path, kind in files.values():
            if kind != expected:
                with pytest.raises(InputError, match=f"expected {expected}, but it looks like {kind} "):
                    read(path)


def test_unknown_fields_are_logged_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net = NetParameter()
    net.layer.add(name="conv1", type="Convolution").MergeFromString(b"\xf8\x3e\x05")
    path = tmp_path / "fork.caffemodel"
    write_caffemodel(net, path)
    again = read_caffemodel(path)
    assert f'{path}: kept, but not understood: layer[0] "conv1": field 1007' in caplog.text
    assert unknown_fields(again) == ['layer[0] "conv1": field 1007']
    write_caffemodel(again, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_name_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "gbk.caffemodel"
    path.write_bytes(NetParameter(layer=[{"name": "aaaa"}]).SerializeToString().replace(b"aaaa", "卷积".encode("gbk")))
    with pytest.raises(InputError, match=r"gbk\.caffemodel: layer\[0\]\.name is not UTF-8$"):
        read_caffemodel(path)


def test_a_required_field_that_is_missing_is_named(tmp_path: Path) -> None:
    net = NetParameter(layer=[{"name": "clip", "clip_param": {"min": 0}}])
    with pytest.raises(InputError, match=r"cannot be written: the required layer\[0\]\.clip_param\.max is missing"):
        write_caffemodel(net, tmp_path / "x")
    (tmp_path / "x").write_bytes(net.SerializePartialToString())
    with pytest.raises(InputError, match=r"x: the required layer\[0\]\.clip_param\.max is missing"):
        read_caffemodel(tmp_path / "x")


def test_a_caffemodel_of_the_v1_form_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "v1.caffemodel"
    net = NetParameter(layers=[{"name": "ip", "type": "INNER_PRODUCT", "blobs": [array_to_blob(np.ones((2, 3)))]}])
    path.write_bytes(net.SerializeToString())
    (layer,) = read_caffemodel(path).layer
    assert (layer.name, layer.type, blob_to_array(layer.blobs[0]).shape) == ("ip", "InnerProduct", (2, 3))
