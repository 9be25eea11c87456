"""The whole of `imae audit`: from what the user names to the folder of results."""

import shlex
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imae.audit.backbones import open_backbone
from imae.audit.cleaned import Thresholds
from imae.audit.features import Features, check_labels
from imae.audit.image_arrays import ImageArrays
from imae.audit.image_features import ImageFeatures
from imae.audit.label_issues import LabelIssues, find_label_issues
from imae.audit.pixel_net import PixelNet
from imae.audit.report import write_report
from imae.audit.result import SUMMARY
from imae.audit.result_folder import write_result
from imae.audit.samples import Samples, read_samples
from imae.prototxt_like.errors import InputError, counted

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class AuditOptions:
    """What `imae audit` is asked for; what is not said here is at `read_samples` and `find_label_issues`."""

    data: str
    output: Path
    image: str = ""
    label: str = ""
    root: Path | None = None
    allow_outside: bool = False
    backbone: str = ""
    budget: float = 10.0
    """Minutes that a net on the pixels is trained for, at most."""
    loss: str = "IMAE"
    parameter: float | None = None
    hidden: int = 0
    folds: int | None = None
    seeds: int = 1
    seed: int = 0
    thresholds: Thresholds = field(default_factory=Thresholds)
    resume: bool = False
    jobs: int = 2
    """Image files that are read at a time."""


@dataclass(frozen=True)
class Outcome:
    """What an audit left."""

    summary: dict[str, Any]
    found: LabelIssues
    samples: Samples
    """Those that were scored."""
    stopped: bool


def audit(
    options: AuditOptions,
    *,
    on_progress: Progress = lambda what, done, total: None,
    show: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Audit, and write the folder of results. An interrupt, while features are made, leaves a result of what is there.

    Raises InputError for what is wrong with the data, the options or the folder.
    """
    samples = read_samples(
        options.data,
        image=options.image,
        label=options.label,
        root=options.root,
        allow_outside=options.allow_outside,
    )
    if (options.output / SUMMARY).exists() and not options.resume:
        raise InputError(f"{options.output}: has an audit already: --resume goes on with it, --output names another")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{options.output}: cannot be made: {error.strerror or error}") from error
    show(f"{options.data}: {counted(len(samples), 'sample')} of {counted(len(samples.classes), 'class')}")
    stopped = False
    if samples.features is None:
        samples, stopped = _with_features(samples, options, on_progress, show)
    elif options.backbone:
        raise InputError(f"--backbone is for images; {options.data} has features")
    assert samples.features is not None
    found = find_label_issues(
        Features(samples.features, source=options.data),
        samples.label,
        loss=options.loss,
        parameter=options.parameter,
        hidden=options.hidden,
        folds=options.folds,
        seeds=options.seeds,
        seed=options.seed,
        on_progress=on_progress,
    )
    found = replace(found, classes=samples.classes)
    summary = write_result(options.output, samples, found, options.thresholds, stopped=stopped)
    write_report(
        options.output,
        _command(options),
        samples,
        threads=options.jobs,
        on_progress=lambda done, total: on_progress("report", done, total),
    )
    return Outcome(summary, found, samples, stopped)


def _command(options: AuditOptions) -> str:
    """The command that goes on with this audit, without thresholds."""
    words = ["imae", "audit", options.data, "--resume"]
    for each in fields(options):
        value = getattr(options, each.name)
        if each.name not in ("data", "thresholds", "resume") and value not in (each.default, MISSING):
            words += [f"--{each.name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(words)


def _with_features(
    samples: Samples, options: AuditOptions, on_progress: Progress, show: Callable[[str], None]
) -> tuple[Samples, bool]:
    """The samples that could be read, with features of their images; whether that was interrupted."""
    stopped = False
    if options.backbone:
        backbone = open_backbone(options.backbone)
        images = ImageArrays(samples, threads=options.jobs)
        table = ImageFeatures(options.output, samples, backbone, seed=options.seed)
        try:
            table.fill(images, lambda done, total: on_progress("features", done, total))
        except KeyboardInterrupt:
            show(f"stopped after {table.done} of {counted(len(samples), 'image')}")
            stopped = True
        if table.done < 20:
            raise KeyboardInterrupt if stopped else InputError(f"{options.data}: {counted(len(samples), 'image')}")
        kept, features = table.found()
        return _chosen(samples, kept, features[kept], table.unreadable), stopped
    color = samples.images is None or samples.images.shape[1] == 3
    net = PixelNet(
        options.output,
        samples,
        ImageArrays(samples, color=color, threads=options.jobs),
        loss=options.loss,
        parameter=options.parameter,
        seed=options.seed,
    )
    ended = net.train(
        options.budget,
        resume=options.resume,
        on_progress=lambda done, total: on_progress("training", done, total),
        show=show,
    )
    net.write()
    kept, features = net.features()
    return _chosen(samples, kept, features, net.unreadable), not ended


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
        images=None if samples.images is None else samples.images[kept],
        unreadable=[(samples.names[i], why) for i, why in sorted(unreadable.items())],
    )
