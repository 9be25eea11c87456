"""Caffe's snapshots in HDF5, of any size: weights (.caffemodel.h5) and the state of a solver (.solverstate.h5).

The layout is that of Caffe's Net::ToHDF5 and SGDSolver::SnapshotSolverStateToHDF5. Weights: a data set
data/LAYER/INDEX for each blob that is not another's by a shared name, with snapshot_diff also diff/LAYER/INDEX for
every blob, and a group for every layer; a name with `/` in it makes groups in groups. State: iter, learned_net,
current_step and history/NUMBER. What Caffe passes over is ours: the attribute imae_provenance, the data set imae_state.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from imae.prototxt_like import provenance as provenances
from imae.prototxt_like.blobs import Stored, Values, describe_stored
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import FilePath, check_regular, replacing
from imae.prototxt_like.limits import LARGEST_INT32, check_message
from imae.prototxt_like.schema import ImaeProvenance, ImaeState, NetParameter, SolverState
from imae.prototxt_like.text import did_you_mean

Layers = Mapping[str, Sequence[tuple[Any, Any]]]
"""Each layer's blobs by their index: data, None if the blob is another layer's, and diff, None if it is not kept."""
_STATE = "imae_state"
_DIGITS = 3
"""Of the index of a blob."""
_DEFLATED = 1100
"""How many times as large as in the file compressed values may be: deflate's bound is 1032."""
_INDEX = re.compile("0|[1-9][0-9]*")


def open_hdf5_weights(path: FilePath) -> Stored:
    """Read weights, their values outside the message; blobs that are another layer's by a shared name have no shape.

    Raises InputError, naming the file, if it is missing, damaged or of another kind.
    """
    net, values = NetParameter(), list[Values]()
    with open_hdf5(path) as file, _reading(path):
        mapped = _map(path, file)
        diffs = dict(_layers(_group(path, file, "diff"))) if "diff" in file else {}
        for name, datasets in _layers(_group(path, file, "data")):
            layer = net.layer.add(name=name)
            for index in range(max(datasets, default=-1) + 1):
                blob = layer.blobs.add()
                if index in datasets:
                    diff = diffs.get(name, {}).get(index)
                    arrays = {"data": datasets[index]} | ({} if diff is None else {"diff": diff})
                    arrays = {kind: _values(dataset, mapped) for kind, dataset in arrays.items()}
                    describe_stored(blob, datasets[index].shape, arrays, values)
        if provenances.NAME in file.attrs:
            # Of a fixed length, as ours: for others HDF5 reads heaps, in which it may hang where they are damaged.
            fixed = file.attrs.get_id(provenances.NAME).dtype.kind == "S"
            text = np.asarray(file.attrs[provenances.NAME]).item().decode() if fixed else "no text"
            provenances.put_text(text, net, str(path))
    if not net.layer:
        raise InputError(f"{path}: holds no layers")
    check_message(net, str(path))
    return Stored(net, values, str(path))


def write_hdf5_weights(
    path: FilePath,
    layers: Layers,
    provenance: ImaeProvenance | None = None,
    to_array: Callable[[Any], NDArray[Any]] = np.asarray,
) -> None:
    """Write the blobs of `layers`, each made an array by `to_array` as it is written: one of them more is in memory.

    Raises InputError for names that HDF5 cannot keep apart, and if `path` cannot be written.
    """
    check_names(layers, str(path))
    with _created(path) as file:
        data = file.create_group("data")
        diff = (
            file.create_group("diff")
            if any(blob[1] is not None for blobs in layers.values() for blob in blobs)
            else None
        )
        if provenance:
            file.attrs[provenances.NAME] = np.bytes_(provenances.as_text(provenance).encode())
        for name, blobs in layers.items():
            if _hinders(name, layers):
                continue
            for group, place in (data, 0), (diff, 1):
                if group is not None:
                    layer = group.require_group(name)
                    for index, blob in enumerate(blobs):
                        if blob[place] is not None:
                            layer.create_dataset(str(index), data=to_array(blob[place]))


def check_names(layers: Mapping[str, Sequence[Any]], what: str) -> None:
    """Raise InputError, beginning with `what`, if a layer with blobs has a name that is none in HDF5."""
    for name, blobs in layers.items():
        if blobs and (why := _hinders(name, layers)):
            raise InputError(f'{what}: layer "{name}" cannot be kept in HDF5: {why}; rename it')


def _hinders(name: str, layers: Mapping[str, Sequence[Any]]) -> str:
    """Why HDF5 cannot have a group of this name beside the other layers' blobs."""
    parts = name.split("/")
    if "\0" in name or any(part in ("", ".") for part in parts):
        return "its name, or a part of it between slashes, is empty, a dot or has a zero byte"
    for end in range(1, len(parts)):
        owner = "/".join(parts[:end])
        if _INDEX.fullmatch(parts[end]) and int(parts[end]) < len(layers.get(owner, ())):
            return f'blob {parts[end]} of layer "{owner}" has that place'
    return ""


def open_hdf5_state(path: FilePath) -> Stored:
    """Read the state of a solver, the history's values outside the message.

    Raises InputError as `open_hdf5_weights` does.
    """
    state, values = SolverState(), list[Values]()
    with open_hdf5(path) as file, _reading(path):
        if "iter" not in file and "data" in file:
            raise InputError(f"{path}: expected a solverstate in HDF5, but it looks like weights: it has no iter")
        state.iter, state.current_step = (_scalar(file, name, "iu", path) for name in ("iter", "current_step"))
        if "learned_net" in file:
            state.learned_net = _scalar(file, "learned_net", "S", path).decode()
        mapped, history = _map(path, file), _group(path, file, "history")
        for number in range(len(history)):
            dataset = find_dataset(history, str(number), f'{path}: history "{number}"')
            arrays = {"data": _values(dataset, mapped)}
            describe_stored(state.history.add(), dataset.shape, arrays, values)
        if _STATE in file:
            dataset = find_dataset(file, _STATE, f'{path}: data set "{_STATE}"')
            if dataset.dtype != np.uint8:
                raise InputError(f'{path}: data set "{_STATE}" holds {dataset.dtype}, expected bytes')
            state.imae_state.CopyFrom(ImaeState.FromString(_values(dataset, mapped, np.uint8).tobytes()))
    check_message(state, str(path))
    return Stored(state, values, str(path))


def write_hdf5_state(
    path: FilePath,
    state: SolverState,
    history: Iterable[Any],
    to_array: Callable[[Any], NDArray[Any]] = np.asarray,
) -> None:
    """Write the state of a solver, with its `history` as `write_hdf5_weights` does with blobs."""
    with _created(path) as file:
        file.create_dataset("iter", data=np.array([state.iter], np.int32))
        name = state.learned_net.encode()
        kind = h5py.h5t.C_S1.copy()  # ends with a zero byte, as Caffe reads it
        kind.set_size(len(name) + 1)
        options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        options.set_obj_track_times(False)  # so that equal states have equal bytes
        dataset = h5py.h5d.create(file.id, b"learned_net", kind, h5py.h5s.create(h5py.h5s.SCALAR), options)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(name, f"S{len(name) + 1}"))
        file.create_dataset("current_step", data=np.array([state.current_step], np.int32))
        group = file.create_group("history")
        for number, blob in enumerate(history):
            group.create_dataset(str(number), data=to_array(blob))
        file.create_dataset(_STATE, data=np.frombuffer(state.imae_state.SerializeToString(), np.uint8))


def open_hdf5(path: FilePath) -> h5py.File:
    """Open an HDF5 file for reading; raises InputError, naming it, if it is missing or none."""
    check_regular(path)
    try:
        return h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: is no HDF5 file that can be read: {one_line(error)}") from error


def find_dataset(group: h5py.Group, name: str, what: str) -> h5py.Dataset:
    """Return a data set of real numbers that is kept in the file itself.

    A file may name any other file of the machine, whose bytes would then be data. Raises InputError, beginning with
    `what`.
    """
    try:
        link = group.get(name, getlink=True)
        if link is None:
            raise InputError(f"{what} is missing{did_you_mean(name, list(group)) or _known(group)}")
        if isinstance(link, h5py.ExternalLink):
            raise InputError(f"{what} is kept in another file, {link.filename}, expected it in this one")
        dataset = group[name]
        if not isinstance(dataset, h5py.Dataset):
            raise InputError(f"{what} is no data set")
        if dataset.external or dataset.is_virtual or dataset.file.filename != group.file.filename:
            raise InputError(f"{what} is kept in other files, expected it in this one")
        if dataset.dtype.kind not in "biuf":
            raise InputError(f"{what} holds values of type {dataset.dtype}, expected real numbers")
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{what} cannot be read: {one_line(error)}") from error
    return dataset


def one_line(error: Exception) -> str:
    """Return what HDF5 says, which may be of several lines."""
    return " ".join(str(error).split())


def _known(group: h5py.Group) -> str:
    names = list(group)
    return f"; there are {', '.join(names)}" if names else "; the file is empty"


@contextlib.contextmanager
def _reading(path: FilePath) -> Iterator[None]:
    """Turn what a damaged file makes HDF5 and its readers raise into an InputError."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError, DecodeError) as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from error


@contextlib.contextmanager
def _created(path: FilePath) -> Iterator[h5py.File]:
    """Make a new HDF5 file that is renamed to `path` once it is whole."""
    with replacing(path) as place:
        try:
            with h5py.File(place.name, "w", locking=False) as file:  # it is locked already
                yield file
        except (OSError, RuntimeError, ValueError) as error:
            reason = re.search("error message = '(.*?)'", str(error))
            raise InputError(f"{path}: cannot be written: {reason[1] if reason else one_line(error)}") from error


def _map(path: FilePath, file: h5py.File) -> NDArray[np.uint8] | None:
    """The bytes of the file, read as they are used; None where its first byte is not what places are counted from."""
    return None if file.userblock_size else np.asarray(np.memmap(path, np.uint8, "r"))


def _group(path: FilePath, file: h5py.File, name: str) -> h5py.Group:
    if isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(group := file[name], h5py.Group):
        return group
    state = (
        ', but it looks like the state of a solver: it has "history"' if name == "data" and "history" in file else ""
    )
    kind = "a solverstate" if name == "history" else "a caffemodel"
    raise InputError(f'{path}: expected {kind} in HDF5, with the group "{name}"{state or _known(file)}')


def _layers(group: h5py.Group, name: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, dict[int, Any]]]:
    """Find the layers in a group, and in the groups in it: their names and data sets by index."""
    seen = set() if seen is None else seen
    seen.add(h5py.h5o.get_info(group.id).addr)
    datasets: dict[int, h5py.Dataset] = {}
    inner: dict[str, h5py.Group] = {}
    for key in group:
        what = f'{group.file.filename}: "{group.name}/{key}"'
        if isinstance(group.get(key, getlink=True), h5py.HardLink) and isinstance(group[key], h5py.Group):
            inner[key] = group[key]
            if h5py.h5o.get_info(inner[key].id).addr in seen:
                raise InputError(f"{what} is a group that has another name, too")
        elif name and _INDEX.fullmatch(key) and len(key) <= _DIGITS:
            datasets[int(key)] = find_dataset(group, key, what)
        else:
            raise InputError(f"{what} is no blob of a layer, expected data/LAYER/INDEX")
    if name and (datasets or not inner):
        yield name, datasets
    for key, below in inner.items():
        yield from _layers(below, f"{name}/{key}" if name else key, seen)


def _values(dataset: h5py.Dataset, mapped: NDArray[np.uint8] | None, kind: Any = None) -> NDArray[Any]:
    """The values of a data set, flat: a view of the file where they lie in it as they are."""
    dtype = np.dtype(kind or (np.float64 if dataset.dtype.itemsize == 8 and dataset.dtype.kind == "f" else np.float32))
    size, stored = dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if dataset.size > LARGEST_INT32 or size > stored * _DEFLATED:
        raise ValueError(f"{dataset.name} of shape {dataset.shape} has {stored} bytes")
    offset = dataset.id.get_offset()
    if offset is None or mapped is None or dataset.dtype != dtype:
        return np.asarray(dataset.astype(dtype)[()]).reshape(-1)
    if stored < size or offset + size > len(mapped):
        raise ValueError(f"{dataset.name} is cut short")
    return mapped[offset : offset + size].view(dtype)


def _scalar(file: h5py.File, name: str, kinds: str, path: FilePath) -> Any:
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise InputError(f'{path}: expected a solverstate in HDF5, with the data set "{name}"{_known(file)}')
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in kinds or dataset.size != 1:
        raise InputError(f'{path}: data set "{name}" is not what a solverstate has there')
    return np.asarray(dataset[()]).item()
