"""Caffe's own snapshots in HDF5, laid out as Net::ToHDF5 and SnapshotSolverStateToHDF5 do it, call by call.

No such file of Caffe's is recorded. Each function makes the calls of the HDF5 library that H5LTmake_dataset_float, _int
and _string make; test_hdf5.py compares the bytes of the files where that library is at hand.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5s, h5t

from imae.prototxt_like.binary import blob_to_array, read_caffemodel, read_solverstate

Blobs = Mapping[str, Sequence[Any]]


def make_floats(group: Any, name: str, array: Any) -> None:
    dataset = h5d.create(group.id, name.encode(), h5t.NATIVE_FLOAT, h5s.create_simple(array.shape))
    dataset.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(array, np.float32))


def make_int(group: Any, name: str, value: int) -> None:
    dataset = h5d.create(group.id, name.encode(), h5t.NATIVE_INT32, h5s.create_simple((1,)))
    dataset.write(h5s.ALL, h5s.ALL, np.array([value], np.int32))


def make_string(group: Any, name: str, text: str) -> None:
    kind = h5t.C_S1.copy()
    kind.set_size(len(text) + 1)
    dataset = h5d.create(group.id, name.encode(), kind, h5s.create(h5s.SCALAR))
    dataset.write(h5s.ALL, h5s.ALL, np.array(text.encode(), f"S{len(text) + 1}"))


def write_weights(path: Path, layers: Blobs, shared: Sequence[tuple[str, int]] = (), make: Any = make_floats) -> None:
    """Net::ToHDF5 without diffs; blobs in `shared` are another layer's."""
    with h5py.File(path, "w") as file:
        data = h5py.h5g.create(file.id, b"data")
        for name, blobs in layers.items():
            group = h5py.Group(h5py.h5g.create(data, name.encode()))
            for i, blob in enumerate(blobs):
                if (name, i) not in shared:
                    make(group, str(i), blob)


def write_state(path: Path, iteration: int, learned_net: str, step: int, history: Sequence[Any]) -> None:
    """SGDSolver::SnapshotSolverStateToHDF5."""
    with h5py.File(path, "w") as file:
        make_int(file, "iter", iteration)
        make_string(file, "learned_net", learned_net)
        make_int(file, "current_step", step)
        group = file.create_group("history")
        for i, blob in enumerate(history):
            make_floats(group, str(i), blob)


def as_hdf5(state: Path, folder: Path) -> Path:
    """Write a binary snapshot of Caffe's as Caffe would have in HDF5; return the path of its state."""
    model, found = state.with_suffix(".caffemodel"), read_solverstate(state)
    weights = {layer.name: [blob_to_array(blob) for blob in layer.blobs] for layer in read_caffemodel(model).layer}
    write_weights(folder / f"{model.name}.h5", weights)
    history = [blob_to_array(blob) for blob in found.history]
    write_state(folder / f"{state.name}.h5", found.iter, f"{model.name}.h5", found.current_step, history)
    return folder / f"{state.name}.h5"
