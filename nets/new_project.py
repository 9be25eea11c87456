"""What `imae init` writes: a net, a solver and lists of images to train on, for a user's own data."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imae.layers.data.image_list import ImageList, read_image
from imae.layers.data.image_sources import Labelled, read_source
from imae.layers.random_streams import permutation
from imae.nets.paper import T_NOISY, Q, digits_solver, loss_type
from imae.nets.residual import classify, convolution, residual_block, with_test_data
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import create_folder, write_atomically
from imae.prototxt_like.net_spec import L, NetSpec
from imae.prototxt_like.schema import NetParameter, SolverParameter
from imae.prototxt_like.text import format_text

SMALLEST, LARGEST = 8, 128
"""Pixels of a side, to which images are brought."""
WIDTHS = (16, 32, 64, 128)
BLOCKS = 2
"""Of each width."""
MARGIN = 8
"""Images are wider than what is cut out of them by a side's so-manieth part."""
BATCH, TEST_BATCH = 128, 100
EPOCHS, FEWEST, MOST = 60, 400, 64_000
"""Passes over the images, and how many iterations that may be."""
LOOKED_AT = 64
"""Images whose size is read."""

_NET = """\
# A residual net for images of {classes} classes, named in classes.txt, of which {train} are trained on (train.txt) and
# {val} are held out, {percent:g} % of each class (val.txt). Written by `imae init`; it is yours to change.
#   The images are resized to {whole} x {whole}; a window of {side} x {side} is cut out, at random in training.
#   mirror: leave it out where left and right differ in meaning, as in text.
#   skip_broken: true, in image_data_param, leaves out images that cannot be read.
"""
_NOISE = """\
    # How does this loss stand wrong labels? Replace a part of the training labels, and see what the test says:
    # noise_rate: 0.4
    # noise_kind: SYMMETRIC  # or SYMMETRIC_EXCLUSIVE, PAIR_FLIP
    # noise_seed: 1
"""
_LOSS = """\
# Other losses: SoftmaxWithIMAELoss { imae_param { T: 8 } }, T 0.5 where labels are right; SoftmaxWithGCELoss
# { gce_param { q: 0.7 } }; SoftmaxWithLoss, which is cross entropy; SoftmaxWithMAELoss.
"""
_SOLVER = """\
# Trains net.prototxt: imae train --solver {solver}
# An iteration is a batch of {batch} images; {iterations} are {epochs:.0f} passes over all of them. test_iter batches of
# {test_batch} images are those that are held out. The learning rate falls at 1/2 and 3/4.
# Written by `imae init`; it is yours to change, so are the paths.
"""


@dataclass(frozen=True)
class Written:
    """What was written."""

    solver: Path
    classes: int
    train: int
    val: int
    side: int


def write_project(
    source: Path,
    out: Path,
    *,
    loss: str = "imae",
    parameter: float | None = None,
    val: float = 0.1,
    root: Path | None = None,
    columns: tuple[str, str] | None = None,
    gray: bool = False,
    seed: int = 0,
    force: bool = False,
) -> Written:
    """Write `net.prototxt`, `solver.prototxt`, `train.txt`, `val.txt` and `classes.txt` to the folder `out`.

    `source` is as for `read_source`, its names are below `root`; the part `val` of each class is held out, drawn by
    `seed`. `loss` is one of `LOSSES`, `parameter` its T or q. Raises InputError for what cannot be read or overwritten.
    """
    loss_type(loss)
    settings = {"imae": {"T": T_NOISY}, "gce": {"q": Q}}.get(loss, {})
    if parameter is not None:
        if not settings:
            raise InputError(f"{loss} has no parameter: T is IMAE's, q is GCE's")
        if not (0 < parameter <= 1 if loss == "gce" else 0 <= parameter < math.inf):
            raise InputError(f"{'q must lie in (0, 1]' if loss == 'gce' else 'T must be 0 or more'}, not {parameter:g}")
        settings = dict.fromkeys(settings, parameter)
    if not force and (out / "solver.prototxt").exists():
        raise InputError(f"{out} has a solver.prototxt already, which is overwritten only with --force")
    found = read_source(source, columns)
    images, classes = found.images, _classes(source, found)
    base, names = _paths(found, root)
    side = _side(base, names, images, gray)
    held_out = _held_out(images.labels, val, seed)
    train, test = int((~held_out).sum()), int(held_out.sum())
    if not test:
        raise InputError(f"{source}: no class has the two images that are needed to hold one out")
    batch, test_batch = max(1, min(BATCH, train // 8)), min(TEST_BATCH, test)
    create_folder(out)
    for name, chosen in (("train", ~held_out), ("val", held_out)):
        lines = (f"{names[i]} {images.labels[i]}\n" for i in np.flatnonzero(chosen).tolist())
        write_atomically(out / f"{name}.txt", "".join(lines).encode(errors="surrogateescape"))
    text = "".join(f"{name}\n" for name in classes)
    write_atomically(out / "classes.txt", text.encode(errors="surrogateescape"))
    net = _net(out.resolve(), base, side, gray, batch, test_batch, len(classes), loss, settings)
    whole = side + side // MARGIN
    head = _NET.format(classes=len(classes), train=train, val=test, percent=100 * val, whole=whole, side=side)
    write_atomically(out / "net.prototxt", (head + _commented(format_text(net))).encode())
    iterations = min(MOST, max(FEWEST, EPOCHS * train // batch))
    head = _SOLVER.format(
        solver=out / "solver.prototxt",
        batch=batch,
        iterations=iterations,
        epochs=iterations * batch / train,
        test_batch=test_batch,
    )
    solver = _solver(out.resolve(), iterations, -(-test // test_batch))
    write_atomically(out / "solver.prototxt", (head + format_text(solver)).encode())
    return Written(out / "solver.prototxt", len(classes), train, test, side)


def _classes(source: Path, found: Labelled) -> list[str]:
    """The names of the classes; of an audit's list those beside it, of others their numbers."""
    labels = found.images.labels
    if labels.min() < 0:
        line = found.images.where(int(labels.argmin()))
        raise InputError(f"{line}: the label {labels.min()}; expected classes, which begin at 0")
    names, beside = found.classes, source.parent / "classes.txt"
    if not names and beside.is_file():
        names = beside.read_text(errors="surrogateescape").splitlines()
    if labels.max() > 10 * len(labels):
        raise InputError(f"{source}: has labels up to {labels.max()} for {len(labels)} images; expected 0, 1, ...")
    if len(names) <= labels.max():
        names = [str(number) for number in range(int(labels.max()) + 1)]
    if len(names) < 2:
        raise InputError(f"{source}: has images of one class, expected two at least")
    return names


def _paths(found: Labelled, root: Path | None) -> tuple[str, Sequence[str]]:
    """The root_folder that names are written after, and the names."""
    images = found.images
    for i, name in enumerate(images.names):
        if "\n" in name or "\r" in name:
            raise InputError(f"{images.where(i)}: {name!r}: a list of images takes no name with a line's end")
    base = root or (found.folder if (found.folder / images.names[0]).exists() else Path())
    if any(Path(name).is_absolute() for name in images.names):
        return "", [os.path.abspath(base / name) for name in images.names]  # noqa: PTH100 - follows no links
    return f"{os.path.abspath(base)}/", images.names  # noqa: PTH100


def _side(base: str, names: Sequence[str], images: ImageList, gray: bool) -> int:
    """The side of the net's images: the median of the shorter sides of some of them, within the bounds."""
    sides, failed = [], ""
    for i in np.unique(np.linspace(0, len(names) - 1, LOOKED_AT).astype(int)).tolist():
        try:
            sides.append(min(read_image(Path(base + names[i]), not gray).shape[1:]))
        except InputError as error:
            failed = failed or f"{images.where(i)}: {error}"
    if not sides:
        raise InputError(failed)
    return min(LARGEST, max(SMALLEST, int(np.median(sides))))


def _held_out(labels: NDArray[np.int64], val: float, seed: int) -> NDArray[np.bool_]:
    """Which samples are held out: so large a part of each class, of two images and more one at least."""
    held_out = np.zeros(len(labels), np.bool_)
    order = permutation(len(labels), seed, "init").numpy()
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        held_out[of_class[: min(len(of_class) - 1, max(1, round(val * len(of_class))))]] = True
    return held_out


def _net(
    out: Path,
    base: str,
    side: int,
    gray: bool,
    batch: int,
    test_batch: int,
    classes: int,
    loss: str,
    settings: dict[str, float],
) -> NetParameter:
    whole = side + side // MARGIN
    own = {"root_folder": base, "new_height": whole, "new_width": whole, "is_color": not gray}
    transform = {"mean_value": [127.5], "scale": 1 / 64, "crop_size": side}
    n = NetSpec()
    n.data, n.label = data, label = L.ImageData(
        ntop=2,
        include={"phase": "TRAIN"},
        transform_param={**transform, "mirror": True},
        image_data_param={"source": str(out / "train.txt"), "batch_size": batch, "shuffle": True, **own},
    )
    stages = max(2, min(len(WIDTHS), int(math.log2(side / 4)) + (side > 12)))
    top = convolution(n, "conv1", data, WIDTHS[0], stride=2 if side > 64 else 1)
    for stage, width in enumerate(WIDTHS[:stages], 1):
        for block in range(1, BLOCKS + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            top = residual_block(n, f"stage{stage}_block{block}", top, width, stride=stride)
    classify(n, top, label, classes, loss, **settings)
    return with_test_data(
        n.to_proto("net"),
        transform_param=transform,
        image_data_param={"source": str(out / "val.txt"), "batch_size": test_batch, **own},
    )


def _commented(net: str) -> str:
    """The net's text, with comments where something is to be tried."""
    before, start, rest = net.partition("  image_data_param {\n")
    text = f"{before}{start}{_NOISE}{rest}"
    place = text.rindex("layer {", 0, text.index('name: "loss"'))
    return text[:place] + _LOSS + text[place:]


def _solver(out: Path, iterations: int, test_iter: int) -> SolverParameter:
    solver = digits_solver(iterations)
    solver.net, solver.snapshot_prefix = str(out / "net.prototxt"), str(out / "snapshots" / "net")
    solver.test_iter[:] = [test_iter]
    solver.test_interval, solver.snapshot = max(1, iterations // 20), max(1, iterations // 4)
    solver.weight_decay = 5e-4
    return solver
