"""`imae check-gradients`: each layer's backward against finite differences of its forward."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from imae.cli.messages import warn
from imae.cli.options import (
    LARGEST,
    LARGEST_SEED,
    AllowPython,
    Level,
    SkipBroken,
    Stage,
    Threads,
    load_torch,
    stages,
)
from imae.cli.table import print_table
from imae.prototxt_like.errors import InputError


class Phase(StrEnum):
    """A net's phase."""

    train = "train"
    test = "test"


def check_gradients(
    net: Annotated[Path, typer.Argument(metavar="NET.prototxt", help="The net.", show_default=False)],
    phase: Annotated[Phase, typer.Option(case_sensitive=False, help="The phase.")] = Phase.train,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The weights at which to check; else initial ones.")
    ] = None,
    samples: Annotated[
        int, typer.Option(metavar="N", min=1, max=LARGEST, help="Elements of each bottom and blob to check.")
    ] = 16,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, max=LARGEST_SEED, help="The seed of weights, inputs and samples.")
    ] = 0,
    level: Level = 0,
    stage: Stage = "",
    threads: Threads = None,
    allow_python: AllowPython = False,
    skip_broken: SkipBroken = False,
) -> None:
    """Check the gradients of a net's layers against finite differences, in double precision.

    The deviations are each layer's largest; at kinks, such as ReLU's at 0, nothing is compared. Exit status 1 if a
    layer's gradient is wrong.

    [bold]imae check-gradients net.prototxt[/]
    """
    load_torch(threads)
    import torch

    from imae.layers.gradient_check import check_net
    from imae.nets.net import Net
    from imae.prototxt_like.schema import TEST, TRAIN

    built = Net(
        net,
        TRAIN if phase is Phase.train else TEST,
        level=level,
        stages=stages(stage),
        dtype=torch.float64,
        seed=seed,
        allow_python=allow_python,
        skip_broken=skip_broken,
    )
    if weights:
        copied = built.copy_weights(weights)
        if not copied.copied:
            raise InputError(f"{weights}: none of its layers has the name of one of {net}'s with weights")
        if copied.kept:
            warn(
                f"{weights} lacks weights of these layers, which are checked at initial ones: {', '.join(copied.kept)}"
            )
    reports = check_net(built, seed=seed, samples=samples)
    rows = [
        [r.name, r.type, f"{r.compared}", f"{r.skipped}", f"{r.absolute:.1e}", f"{r.relative:.1e}", _verdict(r.passed)]
        for r in reports
    ]
    header = ["layer", "type", "compared", "at kinks", "absolute", "relative", "result"]
    print_table(header, rows, right=range(2, 6))
    wrong = [report for report in reports if not report.passed]
    for report in wrong:
        typer.echo(f'layer "{report.name}" ({report.type}): {report.worst or "nothing could be compared"}')
    typer.echo(f"{len(reports) - len(wrong)} of {len(reports)} layers have right gradients.")
    raise typer.Exit(1 if wrong else 0)


def _verdict(passed: bool) -> str:
    return "right" if passed else "WRONG"
