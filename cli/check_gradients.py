"""`imae check-gradients`: each layer's backward against finite differences of its forward."""

from pathlib import Path
from typing import Annotated

import typer

from imae.cli.messages import warn
from imae.cli.options import LARGEST_SEED, NetOptions, Phase, PhaseOption, argument, load_torch, number, option, taking
from imae.cli.table import print_table
from imae.prototxt_like.errors import InputError

_RESULTS = {True: "right", False: "WRONG"}


@taking(NetOptions, "gpu", "cpu", "precision", "plan")
def check_gradients(
    net: Annotated[Path, argument("NET.prototxt", "The net.")],
    *,
    phase: PhaseOption = Phase.train,
    weights: Annotated[Path | None, option("FILE", "The weights at which to check; else initial ones.")] = None,
    samples: Annotated[int, number("Elements of each bottom and blob to check.", 1)] = 16,
    seed: Annotated[int, number("The seed of weights, inputs and samples.", 0, LARGEST_SEED)] = 0,
    options: NetOptions,
) -> None:
    """Check the gradients of a net's layers against finite differences, in double precision.

    The deviations are each layer's largest; at kinks, such as ReLU's at 0, nothing is compared. Exit status 1 if a
    layer's gradient is wrong.

    [bold]imae check-gradients net.prototxt[/]
    """
    load_torch(options.threads)
    import torch

    from imae.layers.gradient_check import check_net
    from imae.nets.net import Net
    from imae.prototxt_like.schema import TEST, TRAIN

    settings = {**options.state, **options.settings, "dtype": torch.float64, "plan": "plain"}
    built = Net(net, TRAIN if phase is Phase.train else TEST, seed=seed, **settings)
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
        [r.name, r.type, f"{r.compared}", f"{r.skipped}", f"{r.absolute:.1e}", f"{r.relative:.1e}", _RESULTS[r.passed]]
        for r in reports
    ]
    header = ["layer", "type", "compared", "at kinks", "absolute", "relative", "result"]
    print_table(header, rows, right=range(2, 6))
    wrong = [report for report in reports if not report.passed]
    for report in wrong:
        typer.echo(f'layer "{report.name}" ({report.type}): {report.worst or "nothing could be compared"}')
    typer.echo(f"{len(reports) - len(wrong)} of {len(reports)} layers have right gradients.")
    raise typer.Exit(1 if wrong else 0)
