"""Binary files: Caffe's own are read and written back, damaged and foreign ones are told from them."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from imae.prototxt_like.binary import (
    array_to_blob,
    blob_to_array,
    check_snapshot_size,
    open_caffemodel,
    open_solverstate,
    read_binaryproto,
    read_caffemodel,
    read_solverstate,
    unknown_fields,
    write_binaryproto,
    write_caffemodel,
    write_solverstate,
)
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import BlobProto, NetParameter, SolverState
from imae.prototxt_like.wire import header

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


def test_of_caffes_caffemodel_cut_between_layers_the_layers_before_the_cut_are_read_and_it_is_an_error_elsewhere(
    tmp_path: Path,
) -> None:
    whole = read_caffemodel(GOLDEN / "solvers/sgd_plain_iter_5.caffemodel")
    del whole.layer[5:]
    data = whole.SerializeToString()
    read = {n: net for n, net in outcomes(read_caffemodel, data, tmp_path / "cut").items() if not isinstance(net, str)}
    assert [list(net.layer) for net in read.values()] == [
        list(whole.layer)[:count] for count in range(1, len(whole.layer))
    ]


@pytest.mark.parametrize("read", [read_caffemodel, open_caffemodel])
def test_a_caffemodel_of_ours_cut_anywhere_is_an_error(read: Callable[[Path], Any], tmp_path: Path) -> None:
    whole = read_caffemodel(GOLDEN / "solvers/sgd_plain_iter_5.caffemodel")
    del whole.layer[3:]
    write_caffemodel(whole, tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    found = outcomes(read, data, tmp_path / "cut")
    assert all(isinstance(outcome, str) for outcome in found.values())
    assert sum("it holds 2 of its 3 layers" in outcome for outcome in found.values()) == 1


def test_what_tells_a_cut_caffemodel_is_one_field_before_all_that_caffe_reads(tmp_path: Path) -> None:
    net = read_caffemodel(CAFFEMODEL)
    write_caffemodel(net, tmp_path / "ours")
    before, _, caffes = (tmp_path / "ours").read_bytes().partition(net.SerializeToString())
    assert before == NetParameter(imae_layers=len(net.layer)).SerializeToString()
    assert not caffes
    assert NetParameter.DESCRIPTOR.fields_by_name["imae_layers"].number == 9001
    assert not read_caffemodel(tmp_path / "ours").HasField("imae_layers")


@pytest.mark.parametrize("read", [read_caffemodel, read_solverstate, read_binaryproto])
@settings(deadline=None)  # other processes may take the machine
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


blobs = st.builds(
    BlobProto,
    shape=st.just({"dim": [3]}),
    data=st.just([1, 2, 3]) | st.just([]),
    diff=st.just([4, 5, 6]) | st.just([]),
    double_data=st.just([7, 8, 9]) | st.just([]),
    double_diff=st.just([1, 1, 2]),
)


@settings(deadline=None)
@given(st.lists(st.lists(blobs, max_size=3), min_size=1, max_size=3), st.sampled_from(["layer", "layers", "V0"]))
def test_values_outside_the_message_are_those_in_it(
    tmp_path_factory: pytest.TempPathFactory, layers: list[list[BlobProto]], form: str
) -> None:
    net = NetParameter()
    for blobs in layers:
        if form == "V0":
            net.layers.add(top=["x"]).layer.MergeFrom(type(net.layers.add().layer)(type="conv", blobs=blobs))
            del net.layers[-1]
            net.layers[-1].layer.name = "conv"
        else:
            getattr(net, form).add(name="conv", blobs=blobs)
    path = tmp_path_factory.getbasetemp() / "net.caffemodel"
    path.write_bytes(net.SerializeToString())
    whole, stored = read_caffemodel(path), open_caffemodel(path)
    for layer, again in zip(whole.layer, stored.message.layer, strict=True):
        for blob, outside in zip(layer.blobs, again.blobs, strict=True):
            for diff in (False, True):
                try:
                    expected = blob_to_array(blob, "x", diff=diff).tolist()
                except InputError as error:
                    expected = str(error)
                try:
                    found = stored.array(outside, "x", diff=diff).tolist()
                except InputError as error:
                    found = str(error)
                assert found == expected


def test_values_in_many_pieces_or_not_packed_are_read_as_protobuf_reads_them(tmp_path: Path) -> None:
    number = (5 << 3 | 5).to_bytes(1, "little")
    alone = b"".join(number + np.float32(value).tobytes() for value in range(100))
    pieces = BlobProto(data=[1, 2]).SerializeToString() + BlobProto(data=[3]).SerializeToString()
    for values_only, values in ((alone, range(100)), (pieces, [1, 2, 3])):
        content = values_only + BlobProto(shape={"dim": [len(values)]}).SerializeToString()
        assert blob_to_array(BlobProto.FromString(content)).tolist() == list(values)
        path = tmp_path / "net.caffemodel"
        layer = header(7, len(content)) + content
        path.write_bytes(header(100, len(layer)) + layer)
        stored = open_caffemodel(path)
        assert stored.array(stored.message.layer[0].blobs[0], "x").tolist() == list(values)


def test_weights_are_written_and_read_with_no_second_copy_in_memory(tmp_path: Path) -> None:
    program = """
import resource, sys
import numpy as np
from imae.prototxt_like.binary import open_caffemodel, write_caffemodel
from imae.prototxt_like.schema import NetParameter
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
values = np.ones((4, 3_000_000), np.float32)
before = peak()
if sys.argv[1] == "write":
    write_caffemodel(NetParameter(layer=[{"name": "ip"}]), sys.argv[2], {"ip": [(values, None)]})
else:
    del values
    stored = open_caffemodel(sys.argv[2])
    (blob,) = stored.message.layer[0].blobs
    assert stored.array(blob, "ip").shape == (4, 3_000_000)
print((peak() - before) / 48e6)
"""
    path = tmp_path / "large.caffemodel"
    for what in ("write", "read"):
        command = [sys.executable, "-c", program, what, str(path)]
        assert float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) < 0.3, what


def test_a_solverstate_with_several_histories_may_be_too_large_where_the_weights_are_not() -> None:
    check_snapshot_size("run", 2**30, 2**30)
    with pytest.raises(InputError, match=r"^run: the solverstate of a snapshot would have 2\.00 GiB, but protobuf's"):
        check_snapshot_size("run", 2**30, 2 * 2**30)


def test_files_beyond_protobufs_limit_are_neither_written_nor_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = read_caffemodel(CAFFEMODEL)
    write_caffemodel(net, tmp_path / "whole")
    monkeypatch.setattr("imae.prototxt_like.binary.LARGEST", 1000)
    with pytest.raises(InputError, match=r"net: cannot be written: its \d+ bytes are more than protobuf's 2 GiB"):
        write_caffemodel(net, tmp_path / "net")
    with pytest.raises(InputError, match=r"state: cannot be written"):
        write_solverstate(SolverState(iter=1), tmp_path / "state", [np.ones(300)])
    assert not (tmp_path / "net").exists()
    with pytest.raises(InputError, match=r"whole: its \d+ bytes are more than protobuf's 2 GiB"):
        read_caffemodel(tmp_path / "whole")


@pytest.mark.parametrize("read", [read_caffemodel, open_caffemodel, read_solverstate, open_solverstate])
def test_a_megabyte_of_ones_is_told_at_once(read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "ones"
    path.write_bytes(b"\xff" * 2**20)
    since = time.monotonic()
    with pytest.raises(InputError, match="it is damaged or of another kind"):
        read(path)
    assert time.monotonic() - since < 1


@pytest.mark.parametrize(("kind", "dtype"), [("FLOAT16", np.float16), ("FLOAT", np.float32), ("DOUBLE", np.float64)])
def test_nvidias_raw_values_are_read(kind: str, dtype: type, tmp_path: Path) -> None:
    values = np.array([0.5, -2, 65504], dtype)
    blob = BlobProto(shape={"dim": [3]}, raw_data=values.tobytes(), raw_diff=values[::-1].tobytes())
    blob.raw_data_type = blob.raw_diff_type = BlobProto.RawType.Value(kind)
    assert blob_to_array(blob).tolist() == [0.5, -2, 65504]
    assert blob_to_array(blob, diff=True).tolist() == [65504, -2, 0.5]
    path = tmp_path / "nv.caffemodel"
    path.write_bytes(NetParameter(layer=[{"name": "ip", "blobs": [blob]}]).SerializeToString())
    stored = open_caffemodel(path)
    assert stored.array(stored.message.layer[0].blobs[0], "ip").tolist() == [0.5, -2, 65504]


def test_nvidias_raw_values_of_other_types_are_named() -> None:
    blob = BlobProto(shape={"dim": [1]}, raw_data=b"1234", raw_data_type=BlobProto.INT)
    with pytest.raises(InputError, match=r"ip: NVIDIA's raw_data holds 4 bytes of INT, expected whole values of"):
        blob_to_array(blob, "ip")


def test_values_that_are_not_finite_are_refused_where_they_are_read(tmp_path: Path) -> None:
    for value in (np.nan, np.inf):
        mean = np.ones((1, 1, 2, 2), np.float32)
        mean[0, 0, 1, 0] = value
        write_binaryproto(mean, tmp_path / "mean.binaryproto")
        with pytest.raises(InputError, match=rf"mean\.binaryproto: value 2 is {value}, expected a finite number"):
            read_binaryproto(tmp_path / "mean.binaryproto")
        write_solverstate(SolverState(iter=1), tmp_path / "state", [mean])
        stored = open_solverstate(tmp_path / "state")
        with pytest.raises(InputError, match=rf"history 0: value 2 is {value}"):
            stored.array(stored.message.history[0], "history 0")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([1] * 65, "the shape has 65 axes, a blob has at most 32"),
        ([2**40, 2**40, 0], "its dimensions are more than a blob can have"),
        ([2**31 - 1, 2**31 - 1, 0], "its dimensions are more than a blob can have"),
    ],
)
def test_a_shape_that_no_blob_can_have_is_an_error(shape: list[int], message: str) -> None:
    blob = BlobProto(shape={"dim": shape}, data=[1] if 0 not in shape else [])
    with pytest.raises(InputError, match=message):
        blob_to_array(blob, "conv1")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (SolverState(iter=-1), "iter is -1, expected at least 0"),
        (SolverState(iter=1, imae_state={"random_seed": 2**64 - 1}), "imae_state.random_seed is 18446744073709551615"),
        (SolverState(iter=1, imae_state={"train_forwards": 2**63}), "imae_state.train_forwards is 9223372036854775808"),
        (SolverState(iter=1, imae_state={"test_forwards": [1, 2**63]}), r"imae_state.test_forwards\[1\] is"),
        (SolverState(iter=1, learned_net="a\0b"), "learned_net holds a zero byte"),
    ],
)
def test_a_state_that_holds_what_it_cannot_is_an_error(state: SolverState, message: str, tmp_path: Path) -> None:
    write_solverstate(state, tmp_path / "state")
    for read in (read_solverstate, open_solverstate):
        with pytest.raises(InputError, match=f"state: {message}"):
            read(tmp_path / "state")
