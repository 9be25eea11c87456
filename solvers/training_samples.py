"""The training samples as a test sees them: in order, without augmentation, through the solver's present weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from imae.layers.data.data_layer import DataLayer
from imae.layers.data.image_set import ImageSetData
from imae.layers.layer import TEST, Context
from imae.layers.loss.sample_loss import SampleLoss
from imae.layers.registry import create_layer, registry
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import replacing
from imae.prototxt_like.number_file import read_arrays
from imae.prototxt_like.schema import LayerParameter, NetParameter
from imae.solvers.solver import Solver

BATCH_SIZE = 500
_FIELDS = {"Data": "data_param", "HDF5Data": "hdf5_data_param", "ImageData": "image_data_param"}


class Batch(NamedTuple):
    """Training samples (N) in their order."""

    scores: Tensor  # what the loss takes: logits or probabilities (N x C x ...)
    label: Tensor  # the labels trained on (N x ...)
    intact: Tensor | None  # the labels as they were before the noise, where the data layer knows them


class TrainingSamples:
    """The images that a solver's net trains on, or with `held_out` the last so many of the whole training split.

    The net is the first test net without its losses, on the training net's data. Raises InputError if the training net
    has no data layer whose samples can be read in order (an image set, Data, ImageData, HDF5Data), no loss of this
    project's, or no test net.
    """

    def __init__(self, solver: Solver, held_out: int = 0) -> None:
        layers = [step.layer for step in solver.net.steps]
        data = next((layer for layer in layers if isinstance(layer, ImageSetData) or layer.type in _FIELDS), None)
        loss = next((layer for layer in layers if isinstance(layer, SampleLoss)), None)
        if not isinstance(data, DataLayer) or loss is None or not solver.test_nets:
            raise InputError(
                f'net "{solver.net.name}": needs an image set, Data, ImageData or HDF5Data, a loss of labels, and a '
                "test net, to tell of training samples"
            )
        self.loss, self._data = loss, data
        self.net = Net(
            _net(solver.test_nets[0].param, data.param, _alike(data, held_out)),
            TEST,
            device=solver.device,
            dtype=solver.net.context.dtype,
            seed=solver.seed,
            folder=solver.folder,
            backward=False,
            plan="fused",
            tf32=None,
        )
        self.net.keep_blobs = False
        self.net.share_weights(solver.net)
        evaluated = next(step.layer for step in self.net.steps if isinstance(step.layer, type(data)))
        if isinstance(evaluated, ImageSetData):
            evaluated.keep_last(held_out or evaluated.num_images)
        self.count = evaluated.num_images

    def __iter__(self) -> Iterator[Batch]:
        """All samples, once."""
        scores, label = self.loss.param.bottom
        self.net.context.passes.number = 0
        for first in range(0, self.count, BATCH_SIZE):
            values = self.net.forward()
            intact = values.get("intact")
            last = min(BATCH_SIZE, self.count - first)
            if intact is None and (known := getattr(self._data, "intact", None)) is not None:
                intact = known[first : first + last]
            yield Batch(values[scores][:last], values[label][:last], None if intact is None else intact[:last])


class SampleRecord:
    """A file of p_y and the weight of each training sample at each test.

    Its arrays: `iteration` (K), `p_y` and `weight` (K x N), `label` (N) and where they are known `intact` (N). `weight`
    is the L1 norm of a sample's gradient by the logits. A sample that is ignored has NaN.
    """

    def __init__(self, solver: Solver, path: Path) -> None:
        """Record at `path`, going on from what is there; raises InputError as `TrainingSamples`."""
        if not solver.prefix:
            raise InputError("--record-samples needs a snapshot_prefix, where the record goes")
        self._solver, self._path, self._samples = solver, path, TrainingSamples(solver)
        self._passes: dict[int, tuple[Any, Any]] | None = None

    def add(self) -> None:
        """Record the samples at the solver's iteration; raises InputError if the file cannot be read or written."""
        if self._passes is None:
            self._passes = self._earlier()
        context = Context(device=self._solver.device)
        context.passes.number = self._solver.net.context.passes.number
        layer = create_layer(self._samples.loss.param, context)
        assert isinstance(layer, SampleLoss)
        found: list[list[Tensor]] = []
        for batch in self._samples:
            shapes = [tuple(batch.scores.shape), tuple(batch.label.shape)]
            if not found:
                layer.setup(shapes)
            layer.reshape(shapes)
            found.append(_of_batch(layer, batch))
        p_y, weight, label, *intact = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
        self._passes[self._solver.iteration] = p_y, weight
        arrays: dict[str, Any] = {
            "iteration": np.array(list(self._passes)),
            "p_y": np.stack([p_y for p_y, _ in self._passes.values()]),
            "weight": np.stack([weight for _, weight in self._passes.values()]),
            "label": label,
        }
        if intact:
            arrays["intact"] = intact[0]
        with replacing(self._path) as file:
            np.savez(file, **arrays)

    def _earlier(self) -> dict[int, tuple[Any, Any]]:
        if not self._path.exists():
            return {}
        arrays = read_sample_record(self._path)
        if arrays["label"].size != self._samples.count:
            raise InputError(f"{self._path}: is of {arrays['label'].size} samples, not {self._samples.count}")
        passes = zip(arrays["iteration"].tolist(), arrays["p_y"], arrays["weight"], strict=True)
        return {iteration: (p_y, weight) for iteration, p_y, weight in passes if iteration < self._solver.iteration}


def read_sample_record(path: Path) -> dict[str, Any]:
    """Return the arrays of a file that `SampleRecord` wrote; raises InputError, naming it, if it is none."""
    arrays = read_arrays(path)
    if missing := {"iteration", "p_y", "weight", "label"} - set(arrays):
        raise InputError(f"{path}: is no record of samples: it lacks {', '.join(sorted(missing))}")
    shape = (arrays["iteration"].size, arrays["label"].size)
    for name in ("p_y", "weight"):
        if arrays[name].shape != shape:
            raise InputError(f"{path}: {name} is {arrays[name].shape}, expected {shape}")
    return arrays


def _of_batch(layer: SampleLoss, batch: Batch) -> list[Tensor]:
    """p_y, weight, label and if they are known the intact labels, each flat."""
    saved: dict[str, Any] = {}
    layer.forward([batch.scores, batch.label], saved)
    values = [value.float() for value in (saved["p_y"], layer.l1_norm(saved))]
    if saved["valid"] is not None:
        values = [value.where(saved["valid"], torch.nan) for value in values]
    flat = [value.flatten() for value in values]
    labels = [batch.label, *([] if batch.intact is None else [batch.intact])]
    return [*flat, *(label.long().flatten() for label in labels)]


def _alike(data: DataLayer, held_out: int) -> LayerParameter:
    """The data layer for a test of its own training samples, in order."""
    param = LayerParameter()
    param.CopyFrom(data.param)
    param.ClearField("phase")
    param.ClearField("include")
    settings: Any = getattr(param, data.field if isinstance(data, ImageSetData) else _FIELDS[data.type])
    settings.batch_size = min(BATCH_SIZE, held_out or data.num_images)
    if param.HasField("transform_param"):
        param.transform_param.ClearField("mirror")
    if isinstance(data, ImageSetData):
        param.top.append("intact")
        settings.split, settings.intact_labels = settings.TRAIN, True
        if held_out:
            settings.subset = 0
    for field in ("shuffle", "rand_skip"):
        if field in settings.DESCRIPTOR.fields_by_name:
            settings.ClearField(field)
    return param


def _net(test_net: NetParameter, trained_on: LayerParameter, data: LayerParameter) -> NetParameter:
    """The test net without what takes labels, on other data."""
    net = NetParameter()
    net.CopyFrom(test_net)
    net.ClearField("state")
    net.ClearField("layer")
    net.layer.add().CopyFrom(data)
    for layer in test_net.layer:
        is_data = layer.type in registry and issubclass(registry[layer.type], DataLayer)
        if not is_data and trained_on.top[1] not in layer.bottom:
            net.layer.add().CopyFrom(layer)
    return net
