"""Weights from one form into another: nothing is changed on the way, and a file that is none is told."""

import sys
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from imae.prototxt_like.binary import array_to_blob, read_caffemodel, write_caffemodel
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import BlobProto, ImaeProvenance, NetParameter
from imae.prototxt_like.weights import ENDINGS, convert_weights, open_weights

RESNET20 = Path(__file__).resolve().parents[2] / "../shared/data/resnet20/cifar10_res20_iter_64000.caffemodel"
WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)
PROVENANCE = ImaeProvenance(version="1.2", random_seed=7, net_sha256="ab", solver_sha256="cd")


@pytest.fixture(scope="module", autouse=True)
def safetensors() -> None:
    pytest.importorskip("safetensors", reason="the extra safetensors is not installed")


def arrays(path: Path) -> dict[str, list[Any]]:
    stored = open_weights(path)
    return {
        layer.name: [stored.array(blob, layer.name) for blob in layer.blobs]
        for layer in stored.message.layer
        if layer.blobs
    }


def assert_same(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    assert sorted(found) == sorted(expected)
    for name, blobs in expected.items():
        for ours, theirs in zip(found[name], blobs, strict=True):
            assert (ours.shape, ours.tobytes()) == (theirs.shape, theirs.tobytes())
            assert ours.dtype == theirs.dtype or not ours.size


def through_all(first: Path, folder: Path) -> Path:
    """Convert a file to each form, and back to a caffemodel; return that."""
    paths = [first, *(folder / f"through{ending}" for ending in (*ENDINGS, ".caffemodel"))]
    for source, target in pairwise(paths):
        convert_weights(source, target)
    return paths[-1]


blobs = npst.arrays(
    st.sampled_from([np.float32, np.float64]), npst.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=3)
)
parts = st.text(st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]), min_size=1, max_size=4)
names = st.lists(parts.filter(lambda part: part != "." and not part.isdigit()), min_size=1, max_size=3).map("/".join)


@settings(deadline=None, max_examples=8)
@given(layers=st.dictionaries(names, st.lists(blobs, min_size=1, max_size=3), min_size=1, max_size=4))
def test_any_weights_come_back_bit_for_bit(
    layers: dict[str, list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    layers = {name: [np.nan_to_num(blob, posinf=1, neginf=2) for blob in blobs] for name, blobs in layers.items()}
    folder = tmp_path_factory.mktemp("any")
    net = NetParameter(layer=[{"name": name, "blobs": map(array_to_blob, blobs)} for name, blobs in layers.items()])
    write_caffemodel(net, folder / "first.caffemodel")
    assert_same(arrays(through_all(folder / "first.caffemodel", folder)), layers)


@pytest.mark.skipif(not RESNET20.exists(), reason=f"{RESNET20} is absent")
def test_a_real_caffemodel_comes_back_bit_for_bit(tmp_path: Path) -> None:
    assert_same(arrays(through_all(RESNET20, tmp_path)), arrays(RESNET20))


def net(**options: Any) -> NetParameter:
    old = BlobProto(num=1, channels=1, height=4, width=3, data=WEIGHT.reshape(-1))
    half = WEIGHT.astype(np.float16).tobytes()
    raw = BlobProto(shape={"dim": [4, 3]}, raw_data=half, raw_data_type=BlobProto.FLOAT16)
    layers = [
        {"name": "a", "type": "InnerProduct", "blobs": [array_to_blob(WEIGHT, -WEIGHT)]},
        {"name": "relu", "type": "ReLU"},
        {"name": "b/old", "type": "InnerProduct", "blobs": [old]},
        {"name": "raw", "type": "InnerProduct", "blobs": [raw]},
    ]
    return NetParameter(name="net", layer=layers, **options)


def test_what_each_form_keeps_beside_the_values(tmp_path: Path) -> None:
    """Diffs in Caffe's two, the layers' settings in its first, old shapes and where they are from in all but .npz."""
    path = tmp_path / "first.caffemodel"
    write_caffemodel(net(imae_provenance=PROVENANCE), path)
    expected = {"a": [WEIGHT], "b/old": [WEIGHT[np.newaxis, np.newaxis]], "raw": [WEIGHT]}
    for ending in ENDINGS:
        done = convert_weights(path, tmp_path / f"net{ending}")
        assert (done.layers, done.blobs, done.values, done.provenance) == (3, 3, 36, PROVENANCE)
        assert_same(arrays(tmp_path / f"net{ending}"), expected)
        stored = open_weights(tmp_path / f"net{ending}")
        layers = {layer.name: layer for layer in stored.message.layer}
        assert layers["b/old"].blobs[0].HasField("num") and not layers["a"].blobs[0].HasField("num")
        assert stored.message.HasField("imae_provenance") == (ending != ".npz")
        assert stored.has_diff(layers["a"].blobs[0]) == (ending in (".caffemodel", ".h5"))
        assert bool(layers["a"].type) == (ending == ".caffemodel")
        convert_weights(tmp_path / f"net{ending}", tmp_path / "back.caffemodel")
        back = read_caffemodel(tmp_path / "back.caffemodel")
        assert {layer.name: layer.blobs[0].HasField("num") for layer in back.layer if layer.blobs} == {
            "a": False,
            "b/old": True,
            "raw": False,
        }
        assert ("relu" in [layer.name for layer in back.layer]) == (ending == ".caffemodel")


def test_an_npz_is_numpys_and_a_safetensors_the_librarys(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    np.savez(tmp_path / "w.npz", **{"conv/1/0": WEIGHT, "conv/1/1": WEIGHT[0]})
    convert_weights(tmp_path / "w.npz", tmp_path / "w.safetensors")
    found = load_file(tmp_path / "w.safetensors")
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "w.npz").stat().st_mode
    assert sorted(found) == ["conv/1/0", "conv/1/1"] and found["conv/1/0"].tobytes() == WEIGHT.tobytes()
    save_file({"ip/0": WEIGHT.astype(np.float16), "ip/1": WEIGHT.astype(np.int32)}, tmp_path / "half.safetensors")
    convert_weights(tmp_path / "half.safetensors", tmp_path / "again.npz")
    with np.load(tmp_path / "again.npz") as again:
        assert again.files == ["ip/0", "ip/1"]
        for name in again.files:
            assert again[name].dtype == np.float32 and (again[name] == WEIGHT).all()


def test_a_form_is_told_by_what_is_in_the_file(tmp_path: Path) -> None:
    write_caffemodel(net(), tmp_path / "net.caffemodel")
    for ending in ENDINGS:
        convert_weights(tmp_path / "net.caffemodel", tmp_path / f"net{ending}")
        (tmp_path / f"net{ending}").rename(tmp_path / "weights.bin")
        assert list(arrays(tmp_path / "weights.bin")) == ["a", "b/old", "raw"]
        (tmp_path / "weights.bin").rename(tmp_path / f"net{ending}")


def zipped(**members: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)

    return write


@pytest.mark.parametrize(
    ("ending", "write", "message"),
    [
        (
            ".npz",
            lambda path: np.savez(path, weight=WEIGHT),
            'holds "weight", expected the blobs of layers, named LAYER',
        ),
        (".npz", lambda path: np.savez(path, **{"a/0": np.array(["x"])}), "w.npz:a/0.npy: holds <U1 values"),
        (".npz", lambda path: np.savez(path, **{"a/0": np.array([{}])}), "holds no array of numbers"),
        (".npz", zipped(), "holds no layers"),
        (".npz", zipped(**{"archive/data.pkl": b"..."}), "holds no array of numbers"),
        (".npz", lambda path: path.write_bytes(b"text"), "holds no array of numbers: File is not a zip file"),
        (".npz", lambda path: path.mkdir(), "is a folder"),
        (".safetensors", lambda path: path.write_bytes(b"text"), "is no safetensors file that can be read"),
        (".safetensors", lambda path: path.write_bytes(b"\x02" + bytes(7) + b"{}"), "holds no layers"),
        (".h5", lambda path: path.write_bytes(b"text"), "is no HDF5 file that can be read"),
        (".caffemodel", lambda path: path.write_bytes(b"text"), "expected a caffemodel, but it looks like text"),
        (".caffemodel", lambda path: None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_weights_is_said_in_one_line(
    ending: str, write: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"w{ending}"
    write(path)
    with pytest.raises(InputError) as error:
        convert_weights(path, tmp_path / "out.npz")
    assert str(error.value).startswith(str(path)) and message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".h5"])
def test_a_file_cut_anywhere_is_an_error(ending: str, tmp_path: Path) -> None:
    write_caffemodel(net(), tmp_path / "net.caffemodel")
    convert_weights(tmp_path / "net.caffemodel", tmp_path / f"net{ending}")
    content = (tmp_path / f"net{ending}").read_bytes()
    for length in range(0, len(content), len(content) // 40):
        (tmp_path / f"cut{ending}").write_bytes(content[:length])
        with pytest.raises(InputError, match=rf"cut\{ending}: ") as error:
            open_weights(tmp_path / f"cut{ending}")
        assert "\n" not in str(error.value)


def test_what_cannot_be_converted_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    write_caffemodel(net(), path)
    with pytest.raises(InputError, match=r"net\.onnx: its ending is none of \.caffemodel, \.h5, \.npz, \.safetensors"):
        convert_weights(path, tmp_path / "net.onnx")
    twice = net()
    twice.layer[1].CopyFrom(twice.layer[0])
    write_caffemodel(twice, path)
    with pytest.raises(InputError, match='two layers with blobs have the name "a"'):
        convert_weights(path, tmp_path / "net.npz")
    np.savez(tmp_path / "gap.npz", **{"a/1": WEIGHT})
    with pytest.raises(InputError, match="lacks blobs that layers share by name, which a caffemodel has to hold"):
        convert_weights(tmp_path / "gap.npz", tmp_path / "out.caffemodel")
    bad = net()
    bad.layer[0].blobs[0].data[2] = np.nan
    write_caffemodel(bad, path)
    with pytest.raises(InputError, match='layer "a": blob 0: value 2 is nan'):
        convert_weights(path, tmp_path / "net.npz")


def test_without_the_library_safetensors_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_caffemodel(net(), tmp_path / "net.caffemodel")
    convert_weights(tmp_path / "net.caffemodel", tmp_path / "net.safetensors")
    for module in "safetensors", "safetensors.numpy":
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"net\.safetensors: is read by safetensors, which is not installed: pip inst"):
        convert_weights(tmp_path / "net.safetensors", tmp_path / "net.npz")
    with pytest.raises(InputError, match=r"out\.safetensors: is written by safetensors, which is not installed"):
        convert_weights(tmp_path / "net.caffemodel", tmp_path / "out.safetensors")
