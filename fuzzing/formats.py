"""What is tried: each format with a few sound inputs, the ways they are damaged, and what reads them."""

import importlib
import io
import json
import pickle
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import safetensors.numpy
import torch
from PIL import Image

from fuzzing.mutations import Mutate, damage_bytes, damage_message, damage_words, inside_deflated, inside_zip, within
from imae.audit.backbone_features import BackboneFeatures
from imae.audit.backbones import Backbone
from imae.audit.cleaned import Thresholds
from imae.audit.image_arrays import ImageArrays
from imae.audit.label_issues import LabelIssues, Picked
from imae.audit.noise_model import Interval
from imae.audit.result_folder import write_result
from imae.audit.review import Review
from imae.audit.samples import Samples, read_samples
from imae.experiments.mars_info import write_miniature
from imae.layers.data import cifar10_data
from imae.layers.data.hdf5_file import Hdf5File
from imae.layers.data.image_decode import decode_image
from imae.layers.data.image_list import read_image_list
from imae.layers.data.label_noise import load_labels, load_matrix
from imae.layers.layer import TEST
from imae.nets.net import Net
from imae.prototxt_like.binary import (
    array_to_blob,
    open_caffemodel,
    open_solverstate,
    read_binaryproto,
    read_caffemodel,
    read_solverstate,
    write_binaryproto,
    write_caffemodel,
    write_solverstate,
)
from imae.prototxt_like.blobs import Stored
from imae.prototxt_like.hdf5 import write_hdf5_state, write_hdf5_weights
from imae.prototxt_like.mars_info import read_names, read_query_index, read_tracks
from imae.prototxt_like.mean_file import read_mean
from imae.prototxt_like.number_file import map_numbers
from imae.prototxt_like.schema import BlobProto, Datum, ImaeProvenance, ImaeState, NetParameter, SolverState
from imae.prototxt_like.text import format_text, parse_net, read_net, read_solver
from imae.prototxt_like.weights import open_state, open_weights
from imae.solvers.log import read_metrics

MIB = 2**20
_LABELS = 20


@dataclass(frozen=True)
class Format:
    """A format: sound inputs, ways to damage them, and a function that reads the file at a path, however damaged."""

    seeds: Sequence[bytes]
    ways: Sequence[Mutate]
    read: Callable[[Path], object]
    name: str = "input"
    """Of the file."""
    memory: int = 256 * MIB
    """How many bytes more than before may be in use while an input is read."""


def all_formats(folder: Path) -> dict[str, Format]:
    """Return every format by name; `folder` is for the sound inputs that only a library can write, to a file."""
    importlib.import_module("torchvision.datasets")  # which one reader imports: before the clock runs
    return {
        "net prototxt": Format(
            [_NET, _OLD_NET, _EXAMPLE.read_bytes()],
            [damage_words, damage_words, damage_bytes],
            lambda path: format_text(read_net(path)),
        ),
        "solver prototxt": Format([_SOLVER], [damage_words, damage_words, damage_bytes], read_solver),
        "caffemodel": Format(_caffemodels(folder), [damage_message, damage_bytes], _read_caffemodel),
        "solverstate": Format(_solverstates(folder), [damage_message, damage_bytes], _read_solverstate),
        "binaryproto": Format(_binaryprotos(folder), [damage_message, damage_bytes], read_binaryproto),
        "mean .npy": Format(
            [_written(lambda file: np.save(file, np.ones((3, 4, 4), np.float32)))],
            [damage_bytes, damage_words],
            read_mean,
            "mean.npy",
        ),
        "caffemodel.h5": Format(_hdf5_snapshots(folder, "w.h5"), [damage_bytes], _read_weights, "w.h5"),
        "solverstate.h5": Format(
            _hdf5_snapshots(folder, "s.h5"), [damage_bytes], lambda path: _values(open_state(path)), "s.h5"
        ),
        "weights .npz": Format(
            [
                _written(lambda file: np.savez(file, **_WEIGHTS)),
                _written(lambda file: np.savez_compressed(file, **_WEIGHTS)),
            ],
            [inside_zip(), damage_bytes],
            _read_weights,
            "w.npz",
        ),
        "weights .safetensors": Format([_safetensors()], [damage_bytes, damage_words], _read_weights, "w.safetensors"),
        "LMDB": Format([_lmdb(folder)], [damage_bytes], _read_lmdb, "data.mdb"),
        "Datum records": _datums(folder),
        "image": Format(_images(), [damage_bytes], lambda path: decode_image(path.read_bytes()), memory=1024 * MIB),
        "image list": Format([b"a b.jpg 0\nc.jpg 12\n"], [damage_words, damage_bytes], read_image_list),
        "HDF5": Format(_hdf5s(folder), [damage_bytes], _read_hdf5),
        "labels .npz": Format(
            [_written(lambda file: np.savez(file, labels=_LABEL_ROW)), _written(_compressed)],
            [inside_zip(), damage_bytes],
            lambda path: load_labels(f"{path}:labels", _LABELS, 10),
            "labels.npz",
        ),
        "labels .npy": Format(
            [_written(lambda file: np.save(file, _LABEL_ROW)), _written(lambda file: np.save(file, _LABEL_ROW / 1))],
            [damage_bytes, damage_words],
            lambda path: load_labels(path, _LABELS, 10),
            "labels.npy",
        ),
        "labels .pt": Format(
            [_written(lambda file: torch.save({"labels": _LABEL_ROW}, file)), _pickled()],
            [inside_zip(), damage_bytes],
            lambda path: load_labels(f"{path}:labels", _LABELS, 10),
            "labels.pt",
        ),
        "labels text": Format(
            [b"\n".join(b"%d" % label for label in _LABEL_ROW)],
            [damage_words, damage_bytes],
            lambda path: load_labels(path, _LABELS, 10),
        ),
        "noise matrix text": Format([b"0.9 0.1\n0.5 0.5\n"], [damage_words, damage_bytes], load_matrix),
        "features .npy": Format(
            [_written(lambda file: np.save(file, np.ones((4, 3), np.float32)))],
            [damage_bytes, damage_words],
            lambda path: np.array(map_numbers(path)),
            "features.npy",
        ),
        "MARS tracks .mat": Format(
            _mats(folder, "tracks_train_info.mat"), [inside_deflated(136), damage_bytes], read_tracks
        ),
        "MARS queries .mat": Format(
            _mats(folder, "query_IDX.mat"), [inside_deflated(136), damage_bytes], read_query_index
        ),
        "MARS names": Format([b"0001C1T0001F001.jpg\n0002C2T0001F001.jpg\n"], [damage_words, damage_bytes], read_names),
        "metrics": Format([_METRICS], [damage_words, damage_bytes], read_metrics),
        **_audit(folder),
        "CIFAR-10 binary": Format([bytes(range(10)) + bytes(3063)], [damage_bytes], _read_cifar10, "test_batch.bin"),
        "CIFAR-10 python": Format(
            [pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]})],
            [damage_bytes],
            _read_cifar10,
            "test_batch",
        ),
    }


_EXAMPLE = Path(__file__).parents[1] / "examples/digits/digits.prototxt"
_NET = b"""name: "net"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 decay_mult: 0.5 }
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.01 } } }
"""
_OLD_NET = b"""input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { name: "old" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1  # as in 2014
  convolution_param { num_output: 4 kernel_size: 3 } }
layers { layer { name: "older" type: "relu" } bottom: "conv" top: "conv" }
"""
_SOLVER = b"""net: "net.prototxt" test_iter: 10 test_interval: 500 base_lr: 0.1 lr_policy: "multistep" gamma: 0.1
stepvalue: 32000 stepvalue: 48000 max_iter: 64000 momentum: 0.9 weight_decay: 1e-4 snapshot_prefix: "run/net"
solver_mode: GPU random_seed: 7 net_param { layer { name: "x" type: "ReLU" } } train_state { level: 1 stage: "a" }
"""
_METRICS = b"".join(
    json.dumps({"iteration": iteration, "phase": "train", "loss": 1 / (1 + iteration), "lr": 0.1}).encode() + b"\n"
    for iteration in range(0, 50, 10)
)
_WEIGHTS: dict[str, Any] = {
    "conv/0": np.ones((4, 3, 3, 3), np.float32),
    "conv/1": np.ones(4),
    "block/ip/0": np.ones((2, 3), np.float16),
}
_LABEL_ROW = np.arange(_LABELS) % 10


def _net() -> NetParameter:
    net = parse_net(_NET.decode())
    net.layer[1].blobs.append(array_to_blob(np.ones((4, 3, 3, 3), np.float32)))
    net.layer[1].blobs.append(array_to_blob(np.ones(4), np.ones(4)))
    raw = np.ones(4, np.float16).tobytes()
    net.layer.add(name="nv", blobs=[BlobProto(shape={"dim": [4]}, raw_data=raw, raw_data_type=BlobProto.FLOAT16)])
    return net


def _caffemodels(folder: Path) -> list[bytes]:
    write_caffemodel(_net(), folder / "net")
    v1 = NetParameter(layers=[{"name": "ip", "type": "INNER_PRODUCT", "blobs": [array_to_blob(np.ones((1, 1, 2, 3)))]}])
    v0 = NetParameter(layers=[{"layer": {"name": "c", "type": "conv", "kernelsize": 3, "blobs": [{"data": [1]}]}}])
    return [(folder / "net").read_bytes(), v1.SerializeToString(), v0.SerializeToString()]


def _solverstates(folder: Path) -> list[bytes]:
    ours = ImaeState(random_seed=7, train_forwards=10, test_forwards=[3], recent_losses=[1.5], batch_size=32)
    state = SolverState(iter=10, learned_net="net_iter_10.caffemodel", current_step=1, imae_state=ours)
    write_solverstate(state, folder / "state", [np.ones((4, 3), np.float32), np.ones(4, np.float32)])
    return [(folder / "state").read_bytes()]


def _hdf5_snapshots(folder: Path, name: str) -> list[bytes]:
    """A file as Caffe writes it, and one whose values are compressed."""
    blobs = [(array.astype(np.float32), None) for array in _WEIGHTS.values()]
    provenance = ImaeProvenance(version="1", random_seed=7, net_sha256="ab")
    write_hdf5_weights(folder / "w.h5", {"block/ip": blobs[2:], "conv": blobs[:2], "relu": []}, provenance)
    state = SolverState(iter=10, learned_net="w.h5", current_step=1, imae_state=ImaeState(random_seed=7))
    write_hdf5_state(folder / "s.h5", state, [data for data, _ in blobs])
    plain = (folder / name).read_bytes()
    with h5py.File(folder / name, "r+") as file:
        group = file["data/conv" if name == "w.h5" else "history"]
        del group["0"]
        group.create_dataset("0", data=_WEIGHTS["conv/0"], compression="gzip")
    return [plain, (folder / name).read_bytes()]


def _safetensors() -> bytes:
    return safetensors.numpy.save(
        {key: array.astype(np.float32) for key, array in _WEIGHTS.items()}, {"imae_provenance": 'version: "1"'}
    )


def _values(stored: Stored) -> object:
    """All that is read of weights or a state."""
    message = stored.message
    blobs = message.history if isinstance(message, SolverState) else [b for layer in message.layer for b in layer.blobs]
    return [stored.array(blob, stored.origin) for blob in blobs if blob.ByteSize()]


def _read_weights(path: Path) -> object:
    return _values(open_weights(path))


def _binaryprotos(folder: Path) -> list[bytes]:
    write_binaryproto(np.ones((1, 3, 4, 4), np.float32), folder / "mean")
    old = BlobProto(num=1, channels=3, height=1, width=2, data=range(6))
    return [(folder / "mean").read_bytes(), old.SerializeToString()]


def _lmdb(folder: Path, datums: Sequence[bytes] = ()) -> bytes:
    if not datums:
        datums = [Datum(channels=1, height=2, width=2, data=bytes(4), label=i).SerializeToString() for i in range(100)]
    with lmdb.open(str(folder / f"lmdb{len(datums)}"), map_size=2**20) as database, database.begin(write=True) as to:
        for i, datum in enumerate(datums):
            to.put(f"{i:05d}".encode(), datum)
    return (folder / f"lmdb{len(datums)}" / "data.mdb").read_bytes()


def _hdf5s(folder: Path) -> list[bytes]:
    """Data as it is, and compressed in pieces."""
    for name, options in (("plain", {}), ("pieces", {"chunks": (2, 3), "compression": "gzip"})):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("data", data=np.arange(24.0).reshape(8, 3), **options)
            file["label"] = np.arange(8)
    return [(folder / f"{name}.h5").read_bytes() for name in ("plain", "pieces")]


def _datums(folder: Path) -> Format:
    """Records whose bytes are damaged in place, so that the database around them stays whole."""
    image = _images()[0]
    datums = [
        Datum(channels=3, height=4, width=4, data=bytes(48), label=3).SerializeToString(),
        Datum(channels=3, height=2, width=2, float_data=range(12), label=1).SerializeToString(),
        Datum(encoded=True, data=image, label=2).SerializeToString(),
    ]
    content = _lmdb(folder, datums)
    ways = []
    for datum in datums:
        first = content.index(datum)
        ways += [within(first, first + len(datum), way) for way in (damage_message, damage_bytes)]
    return Format([content], ways, _read_lmdb, "data.mdb", memory=1024 * MIB)


def _mats(folder: Path, name: str) -> list[bytes]:
    """A table as it is, and compressed, as MATLAB writes it by default."""
    if not (folder / "MARS").exists():
        write_miniature(folder / "MARS")
    plain = (folder / "MARS/info" / name).read_bytes()
    packed = zlib.compress(plain[128:])
    return [plain, plain[:128] + struct.pack("<II", 15, len(packed)) + packed]


def _images() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    images = [
        _written(lambda file, kind=kind: Image.fromarray(pixels).save(file, kind))  # type: ignore[misc]
        for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP")
    ]
    return [*images, _written(lambda file: Image.fromarray(pixels[:, :, 0]).save(file, "PNG"))]


def _audit(folder: Path) -> dict[str, Format]:
    """What an audit leaves, each file damaged beside the others as they are, and tables to be audited."""
    whole = folder / "audit"
    whole.mkdir()
    label, p = np.arange(_LABELS) % 3, np.linspace(1, 0, _LABELS)
    transition = Interval(*(np.eye(3),) * 3)
    picked = Picked("IMAE", 8.0, 0.01, 100, 0, 1, 0.8, 0.7, [])
    logits = np.ones((_LABELS, 3), np.float32)
    names = [f"{i}.png" for i in range(_LABELS)]
    samples = Samples("photos", label, ["cat", "dog", "pig"], names, root=folder)
    found = LabelIssues(
        label=label,
        classes=samples.classes,
        score=p,
        p_wrong=p,
        suggested=(label + 1) % 3,
        p_suggested=p,
        is_issue=p > 0.5,
        noise_rate=Interval(*(np.array(0.5),) * 3),
        transition=transition,
        picked=picked,
        logits=logits,
    )
    write_result(whole, samples, found, Thresholds())
    decided = [{"name": f"{i}.png", "index": i, "action": action} for i, action in enumerate(("keep", "drop"))]
    lines = [*decided, {"name": "3.png", "index": 3, "action": "relabel", "label": "pig"}, {"undo": True}]
    (whole / "decisions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    backbone = Backbone("x", (8, 8), lambda images: np.ones((len(images), 2), np.float32), "x")
    BackboneFeatures(whole, samples, backbone).fill(ImageArrays(samples), lambda done, total: None)
    files = {path.name: path.read_bytes() for path in whole.iterdir()}

    def beside(path: Path) -> Path:
        for name, content in files.items():
            if not (path.parent / name).exists():
                (path.parent / name).write_bytes(content)
        return path.parent

    def review(path: Path) -> object:
        found = Review(beside(path))
        return found.page(), [found.item(place) for place in range(len(found.queue))], found.counts()

    def resume(path: Path) -> object:
        table = BackboneFeatures(beside(path), samples, backbone)
        table.fill(ImageArrays(samples), lambda done, total: None)
        return table.found()

    ways: dict[str, list[Mutate]] = {
        "summary.json": [damage_words, damage_bytes],
        "scores.npz": [inside_zip(), damage_bytes],
        "names.txt": [damage_words, damage_bytes],
        "decisions.jsonl": [damage_words, damage_bytes],
        "features.json": [damage_words, damage_bytes],
        "features.npy": [damage_words, damage_bytes],
    }
    tables = {
        "numbers": (b"label,a,b\n" + b"0,1.5,2\n1,-3,4e5\n" * 12, {}),
        "paths": (b'path,label\na.png,cat\n"b, c.png",dog\n', {"image": "path"}),
    }
    return {
        f"audit {name}": Format([files[name]], ways[name], resume if "features" in name else review, name)
        for name in ways
    } | {
        f"audit CSV of {name}": Format(
            [content],
            [damage_words, damage_bytes],
            lambda path, options=options: read_samples(str(path), label="label", **options),  # type: ignore[misc]
            "table.csv",
        )
        for name, (content, options) in tables.items()
    }


def _written(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def _compressed(file: io.BytesIO) -> None:
    np.savez_compressed(file, labels=_LABEL_ROW, clean_label=_LABEL_ROW)


def _pickled() -> bytes:
    return _written(lambda file: torch.save({"labels": _LABEL_ROW}, file, _use_new_zipfile_serialization=False))


def _read_caffemodel(path: Path) -> None:
    stored = open_caffemodel(path)
    for layer in stored.message.layer:
        for blob in layer.blobs:
            stored.array(blob, f"{path}: {layer.name}")
    read_caffemodel(path)


def _read_solverstate(path: Path) -> None:
    stored = open_solverstate(path)
    for blob in stored.message.history:
        stored.array(blob, str(path))
    read_solverstate(path)


def _read_lmdb(path: Path) -> None:
    source = json.dumps(str(path.parent))
    settings = f"data_param {{ source: {source} backend: LMDB batch_size: 3 }} transform_param {{ crop_size: 2 }}"
    Net(parse_net(f'layer {{ name: "d" type: "Data" top: "data" top: "label" {settings} }}'), TEST).forward()


def _read_cifar10(path: Path) -> None:
    cifar10_data._load.cache_clear()
    known = "data_batch_1.bin" if path.suffix else "data_batch_1"
    (path.parent / known).touch()  # by which the folder is known
    cifar10_data.load_cifar10(path.parent, train=False)


def _read_hdf5(path: Path) -> object:
    file = Hdf5File(path, ["data", "label"])
    try:
        return [file.read("data"), file.read("label", np.array([0, len(file) - 1]))]
    finally:
        file.close()
