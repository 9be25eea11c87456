"""The whole of `imae audit`: from what the user names to the folder of results."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from imae.audit.cleaned import Thresholds
from imae.audit.features import Features
from imae.audit.features_of_images import features_of_images
from imae.audit.label_issues import LabelIssues, find_label_issues
from imae.audit.report import write_report
from imae.audit.result import SUMMARY
from imae.audit.result_folder import write_result
from imae.audit.samples import Samples, read_samples
from imae.audit.workers import engine
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
    ignore: Sequence[str] = ()
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
    jobs: int | None = None
    """Processes that train, and image files that are read at a time; None: this one, and as many files as cores."""
    cpu: bool = False
    """Whether the net that gives features of images runs on the CPU even where there is a GPU."""
    engine: str = ""
    """What trains in place of this process, as `workers.engine` takes it."""


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
        ignore=options.ignore,
    )
    if (options.output / SUMMARY).exists() and not options.resume:
        raise InputError(f"{options.output}: has an audit already: --resume goes on with it, --output names another")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{options.output}: cannot be made: {error.strerror or error}") from error
    show(f"{options.data}: {counted(len(samples), 'sample')} of {counted(len(samples.classes), 'class')}")
    stopped = False
    device = "cuda" if torch.cuda.is_available() and not options.cpu else "cpu"
    if samples.features is None and device == "cuda":
        show(f"features are made on a GPU, {torch.cuda.get_device_name()}")
    with engine(options.engine, options.jobs):
        if samples.features is None:
            samples, stopped = features_of_images(
                samples,
                options.output,
                backbone=options.backbone,
                budget=options.budget,
                loss=options.loss,
                parameter=options.parameter,
                seed=options.seed,
                resume=options.resume,
                jobs=options.jobs,
                device=device,
                on_progress=on_progress,
                show=show,
            )
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
            for one in value if isinstance(value, list | tuple) else [value]:
                words += [f"--{each.name.replace('_', '-')}", *([] if one is True else [str(one)])]
    return shlex.join(words)
