"""Weights in every form: .caffemodel, .caffemodel.h5, .npz and .safetensors, told by their content or their names."""

import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imae.prototxt_like import provenance as provenances
from imae.prototxt_like.binary import open_caffemodel, open_solverstate, write_caffemodel, write_solverstate
from imae.prototxt_like.blobs import Stored, Values, describe_stored
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import FilePath, check_regular, open_regular, replacing
from imae.prototxt_like.limits import check_message
from imae.prototxt_like.number_file import read_arrays
from imae.prototxt_like.schema import ImaeProvenance, NetParameter, SolverState

ENDINGS = (".caffemodel", ".h5", ".npz", ".safetensors")
"""Of files of weights, by which it is known in which form one is written."""
_KEY = re.compile(r"(.+)/(0|[1-9]\d{0,2})", re.DOTALL)
"""The name of a blob among an .npz's arrays and a safetensors file's tensors: LAYER/INDEX."""
_SAFETENSORS = "safetensors, which is not installed: pip install 'imae[safetensors]'"


def is_hdf5(path: FilePath) -> bool:
    """Whether a file is, or by its name should be, HDF5; raises InputError if it cannot be read."""
    with open_regular(path) as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n" or str(path).endswith(".h5")


def open_weights(path: FilePath) -> Stored:
    """Read a net's weights in any form, their values outside the message.

    An .npz and a .safetensors hold an array LAYER/INDEX for each blob. Raises InputError, naming the file, if it is
    missing, damaged, or holds no weights.
    """
    if is_hdf5(path):
        from imae.prototxt_like.hdf5 import open_hdf5_weights  # h5py takes a while to import

        return open_hdf5_weights(path)
    with open_regular(path) as file:
        head = file.read(10)
    if head.startswith(b"PK\x03\x04") or str(path).endswith(".npz"):
        return _from_arrays(path, read_arrays(path))
    if head[8:] == b'{"' or str(path).endswith(".safetensors"):
        return _from_arrays(path, *_read_safetensors(path))
    return open_caffemodel(path)


def open_state(path: FilePath) -> Stored:
    """Read the state of a solver in either form, binary or HDF5, the history's values outside the message."""
    if is_hdf5(path):
        from imae.prototxt_like.hdf5 import open_hdf5_state

        return open_hdf5_state(path)
    return open_solverstate(path)


def write_weights(
    path: FilePath,
    net: NetParameter,
    layers: Mapping[str, list[tuple[Any, Any]]],
    to_array: Callable[[Any], NDArray[Any]] = np.asarray,
) -> None:
    """Write the blobs of `layers` (data and diff, each made an array by `to_array`) in the form of the path's ending.

    A caffemodel has the layers of `net` around them, as has any file of another ending. Data of None are another
    layer's by a shared name, for HDF5, which keeps them once. Diffs of None are not kept, and neither are any in an
    .npz or a .safetensors. Raises InputError if the form cannot hold them, or `path` cannot be written.
    """
    name = str(path)
    provenance = provenances.of_net(net)
    if name.endswith(".h5"):
        from imae.prototxt_like.hdf5 import write_hdf5_weights

        write_hdf5_weights(path, {layer.name: layers.get(layer.name, []) for layer in net.layer}, provenance, to_array)
        return
    if name.endswith((".npz", ".safetensors")):
        blobs = {f"{layer}/{i}": blob for layer, blobs in layers.items() for i, (blob, _) in enumerate(blobs)}
        arrays = ((key, to_array(blob)) for key, blob in blobs.items() if blob is not None)
        (_write_npz if name.endswith(".npz") else _write_safetensors)(path, arrays, provenance)
        return
    arrays_of = {
        layer: [(to_array(data), None if diff is None else to_array(diff)) for data, diff in blobs]
        for layer, blobs in layers.items()
    }
    write_caffemodel(net, path, arrays_of)


def write_state(
    path: FilePath, state: SolverState, history: Iterable[Any], to_array: Callable[[Any], NDArray[Any]] = np.asarray
) -> None:
    """Write the state of a solver, with its `history`, in HDF5 if the path ends with .h5, else binary."""
    if str(path).endswith(".h5"):
        from imae.prototxt_like.hdf5 import write_hdf5_state

        write_hdf5_state(path, state, history, to_array)
    else:
        write_solverstate(state, path, [to_array(blob) for blob in history])


@dataclass
class Converted:
    """What `convert_weights` wrote."""

    layers: int
    """With blobs."""
    blobs: int
    values: int
    provenance: ImaeProvenance | None


def convert_weights(source: FilePath, target: FilePath) -> Converted:
    """Write the weights of a file to another, in the form of its ending, bit for bit.

    Raises InputError for an ending that is none of `ENDINGS`, for two layers of one name, and as `open_weights` and
    `write_weights` do.
    """
    if not str(target).endswith(ENDINGS):
        raise InputError(f"{target}: its ending is none of {', '.join(ENDINGS)}, which say how weights are written")
    stored = open_weights(source)
    net, layers = stored.message, dict[str, list[tuple[Any, Any]]]()
    for layer in net.layer:
        if layer.blobs and layer.name in layers:
            raise InputError(f'{source}: two layers with blobs have the name "{layer.name}"')
        for i, blob in enumerate(layer.blobs):
            what = f'{source}: layer "{layer.name}": blob {i}'
            data = stored.array(blob, what) if blob.ByteSize() else None
            diff = stored.array(blob, what, diff=True) if data is not None and stored.has_diff(blob) else None
            layers.setdefault(layer.name, []).append((data, diff))
    blobs = [data for blobs in layers.values() for data, _ in blobs]
    if str(target).endswith(".caffemodel"):
        if any(data is None for data in blobs):
            raise InputError(f"{source}: lacks blobs that layers share by name, which a caffemodel has to hold")
        for layer in [layer for layer in net.layer if not (layer.type or layer.blobs)]:
            net.layer.remove(layer)  # it may have blobs in a net, which Caffe would then miss here
    write_weights(target, net, layers)
    values = sum(data.size for data in blobs if data is not None)
    return Converted(len(layers), len(blobs), values, provenances.of_net(net))


def _from_arrays(path: FilePath, arrays: Mapping[str, NDArray[Any]], provenance: str = "") -> Stored:
    net, values = NetParameter(), list[Values]()
    layers: dict[str, dict[int, NDArray[Any]]] = {}
    for key, array in arrays.items():
        if not (found := _KEY.fullmatch(key)):
            raise InputError(f'{path}: holds "{key}", expected the blobs of layers, named LAYER/INDEX')
        layers.setdefault(found[1], {})[int(found[2])] = array
    if not layers:
        raise InputError(f"{path}: holds no layers")
    for name, blobs in layers.items():
        layer = net.layer.add(name=name)
        for index in range(max(blobs) + 1):
            blob = layer.blobs.add()
            if index in blobs:
                flat = blobs[index].reshape(-1)
                flat = flat.astype(np.float64 if flat.dtype == np.float64 else np.float32, copy=False)
                describe_stored(blob, blobs[index].shape, {"data": flat}, values)
    if provenance:
        provenances.put_text(provenance, net, str(path))
    check_message(net, str(path))
    return Stored(net, values, str(path))


def _write_npz(path: FilePath, arrays: Iterable[tuple[str, NDArray[Any]]], provenance: ImaeProvenance | None) -> None:
    """Write as numpy.savez does, one array after another; `provenance` has no place."""
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for key, array in arrays:
            if "\0" in key:
                raise InputError(f"{path}: a name with a zero byte, {key!r}, cannot be written")
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _write_safetensors(
    path: FilePath, arrays: Iterable[tuple[str, NDArray[Any]]], provenance: ImaeProvenance | None
) -> None:
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise InputError(f"{path}: is written by {_SAFETENSORS}") from error
    metadata = {provenances.NAME: provenances.as_text(provenance)} if provenance else None
    with replacing(path) as file:
        file.write(save({key: np.asarray(array, order="C") for key, array in arrays}, metadata))


def _read_safetensors(path: FilePath) -> tuple[dict[str, NDArray[Any]], str]:
    check_regular(path)
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise InputError(f"{path}: is read by {_SAFETENSORS}") from error
    try:
        with safe_open(str(path), framework="numpy") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no dictionary
            return arrays, (file.metadata() or {}).get(provenances.NAME, "")
    except Exception as error:  # its own kinds, and those of types that NumPy has not
        raise InputError(f"{path}: is no safetensors file that can be read: {' '.join(str(error).split())}") from error
