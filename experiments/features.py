"""Runs a net over all images of its data layer and keeps one blob of each: the features that retrieval compares."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from imae.experiments.feature_table import FeatureTable
from imae.layers.data.data_layer import DataLayer, data_lines
from imae.layers.layer import Shape, describe
from imae.nets.net import Net
from imae.nets.state import filter_layers, left_out, with_stages
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes
from imae.prototxt_like.schema import TEST, NetParameter
from imae.prototxt_like.text import did_you_mean, read_net


@dataclass(frozen=True)
class FeatureReport:
    """What `extract_features` wrote: the shape of the table, and how many rows an earlier run had left."""

    rows: int
    features: int
    found: int


def extract_features(
    model: Path,
    weights: Path,
    blob: str,
    output: Path,
    *,
    data: Path | None = None,
    stages: Sequence[str] = (),
    dtype: torch.dtype = torch.float32,
    tf32: bool = False,
    show: Callable[[str], None] = lambda line: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    **net_options: Any,
) -> FeatureReport:
    """Write `blob` of every image of the net's data, in phase TEST, to `output`: .npy, float32 (images, features).

    A blob of one number an image, without further axes, as labels are, gives (images,), which `noise_file` reads.

    The images come once each, in the data layer's order, which is read from the folder or database `data` in place of
    the prototxt's where it is given; `stages` choose among its layers. `dtype`, `tf32` and `net_options` are as for
    `Net`, but that the plan is "fused" unless they say otherwise; `show` gets what there is to say of the data,
    `on_progress` is called after each batch: how many images are done, of how many.
    Until the table is whole it grows under `output`'s name with an ending of its own; the same call, made again after
    an interruption, goes on from there.

    Raises InputError for a blob that the net lacks, layers without weights, and data that cannot be read.
    """
    param = _up_to(blob, _reading(data, with_stages(read_net(model), stages), model), model)
    options: dict[str, Any] = {"plan": "fused", **net_options, "dtype": dtype, "tf32": tf32}
    net = Net(param, TEST, folder=model.parent, backward=False, **options)
    for line in data_lines(step.layer for step in net.steps):
        show(line)
    net.keep_blobs = False
    if kept := net.copy_weights(weights).kept:
        raise InputError(f"{weights}: lacks weights of the layers {', '.join(kept)} of {model}")
    (batch, *_), total = _data(net, model)
    shape = net.shapes[net.newest[blob]]
    if shape[:1] != (batch,):
        raise InputError(f'{model}: "{blob}" is {describe(shape)}, expected a row for each of {batch} images')
    features = math.prod(shape[1:])
    table = FeatureTable(
        output, (total, features) if shape[1:] else (total,), _fingerprint(param, weights, dtype, tf32, total), batch
    )
    report = FeatureReport(total, features, found=table.rows)
    net.context.passes.number = table.rows // batch
    while table.rows < total:
        values = net.forward()[blob].float().reshape(batch, features)
        net.check()
        table.append(values.cpu().numpy()[: total - table.rows])
        on_progress(table.rows, total)
    table.finish()
    return report


def _reading(data: Path | None, param: NetParameter, model: Path) -> NetParameter:
    """`param` with the `source` of its data layers replaced by `data`, if given."""
    if data is None:
        return param
    sources = [
        settings
        for layer in param.layer
        for field, settings in layer.ListFields()
        if field.name.endswith("data_param") and "source" in settings.DESCRIPTOR.fields_by_name
    ]
    if not sources:
        raise InputError(f"{model}: has no data layer with a source that {data} could replace")
    for settings in sources:
        settings.source = str(data)
    return param


def _up_to(blob: str, param: NetParameter, model: Path) -> NetParameter:
    """The layers of the TEST phase up to the last that makes `blob`."""
    param.state.phase = TEST
    whole, param = param, filter_layers(param)
    makers = [i for i, layer in enumerate(param.layer) if blob in layer.top]
    if not makers:
        hint = left_out(blob, whole) or did_you_mean(blob, [top for layer in param.layer for top in layer.top])
        raise InputError(f'{model}: no layer of its TEST phase has the top "{blob}"{hint}')
    del param.layer[makers[-1] + 1 :]
    made: set[str] = set()
    for layer in param.layer:
        for bottom in set(layer.bottom) - made:
            if hint := left_out(bottom, whole):
                raise InputError(
                    f'{model}: layer "{layer.name}" ({layer.type}): its bottom "{bottom}" is missing{hint}'
                )
        made.update(layer.top)
    return param


def _data(net: Net, model: Path) -> tuple[Shape, int]:
    """The shape of a batch of the net's data layer, and how many images it has."""
    steps = [step for step in net.steps if isinstance(step.layer, DataLayer) and step.layer.num_images]
    if len(steps) != 1:
        raise InputError(f"{model}: has {len(steps)} data layers that know how many images they have, expected one")
    return net.shapes[steps[0].tops[0]], steps[0].layer.num_images  # type: ignore[attr-defined]


def _fingerprint(param: NetParameter, weights: Path, *others: object) -> str:
    digest = hashlib.blake2b(param.SerializeToString(deterministic=True), digest_size=8)
    digest.update(read_bytes(weights))
    digest.update(repr(others).encode())
    return digest.hexdigest()
