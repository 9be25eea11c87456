"""From samples that are images to features: by a backbone, or by a net that is trained on the pixels."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imae.audit.backbone_features import BackboneFeatures
from imae.audit.backbones import open_backbone
from imae.audit.data_sets import read_data_set
from imae.audit.features import check_labels
from imae.audit.image_arrays import ImageArrays
from imae.audit.pixel_net import PixelNet
from imae.audit.samples import Samples
from imae.prototxt_like.errors import InputError, counted

Progress = Callable[[str, int, int], None]


def features_of_images(
    samples: Samples,
    folder: Path,
    *,
    backbone: str = "",
    budget: float = 10.0,
    loss: str = "IMAE",
    parameter: float | None = None,
    seed: int = 0,
    resume: bool = False,
    jobs: int | None = None,
    device: str = "cpu",
    on_progress: Progress = lambda what, done, total: None,
    show: Callable[[str], None] = lambda line: None,
) -> tuple[Samples, bool]:
    """Return the samples that could be read, with features of their images, and whether that was interrupted.

    By a `backbone`, as `open_backbone` takes it, else by a net that is trained for `budget` minutes at most. `folder`
    keeps what another call goes on from; `jobs` images are read at a time, and the net runs on `device`. Raises
    InputError where there are too few.
    """
    if backbone:
        images, net = ImageArrays(samples, threads=jobs), open_backbone(backbone, device)
        table, stopped = BackboneFeatures(folder, samples, net, seed=seed), False
        try:
            table.fill(images, lambda done, total: on_progress("features", done, total))
        except KeyboardInterrupt:
            show(f"stopped after {table.done} of {counted(len(samples), 'image')}")
            stopped = True
        if table.done < 20:
            raise KeyboardInterrupt if stopped else InputError(f"{samples.source}: {counted(len(samples), 'image')}")
        kept, features = table.found()
        whole = len(kept) == len(features)
        return _chosen(samples, kept, features if whole else features[kept], table.unreadable), stopped
    color = samples.images is None or len(samples.images[0]) == 3
    images = ImageArrays(samples, color=color, threads=jobs)
    pixels = PixelNet(folder, samples, images, loss=loss, parameter=parameter, seed=seed, device=device)
    ended = pixels.train(
        budget, resume=resume, on_progress=lambda done, total: on_progress("training", done, total), show=show
    )
    pixels.write()
    kept, features = pixels.features()
    return _chosen(samples, kept, features, pixels.unreadable), not ended


def features_of_data_set(data: Any, labels: Any, folder: Path, **options: Any) -> Samples:
    """Return all samples of a data set, with features, kept in `folder` where they are many; `options` are as above.

    Raises InputError as that does, and if an item cannot be read.
    """
    samples = read_data_set(data, labels, folder)
    if samples.features is not None:
        if options.get("backbone"):
            raise InputError("backbone is for images; the data set has numbers")
        return samples
    found, stopped = features_of_images(samples, folder, **options)
    if stopped:
        raise KeyboardInterrupt
    if found.unreadable:
        more = f"; nor can {len(found.unreadable) - 1} more" if found.unreadable[1:] else ""
        raise InputError(f"{found.unreadable[0][1]}{more}")
    return found


def _chosen(
    samples: Samples, kept: NDArray[np.int64], features: NDArray[np.float32], unreadable: dict[int, str]
) -> Samples:
    """Some of the samples, with features; classes of which none is left are left out."""
    if not len(kept):
        raise InputError(f"{samples.source}: none of the images can be read: {next(iter(unreadable.values()))}")
    label, numbers = check_labels(samples.label[kept], len(kept))
    return replace(
        samples,
        label=label,
        classes=[samples.classes[int(number)] for number in numbers],
        names=[samples.names[i] for i in kept],
        features=features,
        images=samples.images[kept] if isinstance(samples.images, np.ndarray) else samples.images,
        unreadable=[(samples.names[i], why) for i, why in sorted(unreadable.items())],
    )
