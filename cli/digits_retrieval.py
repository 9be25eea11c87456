"""`imae reproduce digits-retrieval`: what features learned from wrong labels are worth on digits never trained on."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from imae.cli.options import LARGEST, load_torch
from imae.cli.progress import Display
from imae.cli.table import print_table

ITERATIONS = 200
"""Of 128 images: each of the 630 is seen 40 times, as in `imae demo`."""


def digits_retrieval(
    noise: Annotated[
        list[int] | None,
        typer.Option("--noise", metavar="PERCENT", help="How many labels are drawn anew; 0 and 50 by default."),
    ] = None,
    loss: Annotated[
        list[str] | None,
        typer.Option("--loss", metavar="LOSS", help="CCE, MAE, GCE, IMAE; all by default."),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, max=LARGEST, help="Train with the seeds 1 to N.")] = 3,
    iterations: Annotated[
        int, typer.Option(metavar="N", min=4, max=LARGEST, help="Stop training at this iteration.")
    ] = ITERATIONS,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where runs, figure and page go; goes on with what is there.")
    ] = Path("digits-retrieval"),
) -> None:
    """Retrieve digits 5 to 9 by features learned from digits 0 to 4 with wrong labels, with each loss.

    Tracklets of 4 or 5 images are ranked by cosine similarity and scored by the MARS protocol. Beside the losses stand
    raw pixels, an untrained net and chance. What is finished stays on disk: the same command, given again, goes on
    where it was stopped or killed.

    [bold]imae reproduce digits-retrieval --noise 20 --noise 50 --noise 80[/]
    """
    load_torch()
    from imae.experiments.digits_retrieval import (
        ACCURACY_COLUMNS,
        RETRIEVAL_COLUMNS,
        compare,
        finished,
        reading_of,
        select_runs,
        write_report,
    )

    runs = select_runs(noise or (), loss or (), seeds)
    options: dict[str, list[object]] = {
        "--noise": list(dict.fromkeys(run.noise for run in runs)),
        "--loss": list(dict.fromkeys(run.loss for run in runs)),
        "--seeds": [seeds],
        "--iterations": [iterations],
        "--output": [output],
    }
    words = [str(word) for name, values in options.items() for value in values for word in (name, value)]
    command = shlex.join(["imae", "reproduce", "digits-retrieval", *words])
    try:
        with Display() as display:
            rows = compare(output, runs, iterations, progress=display.advance, show=display.show)
    except KeyboardInterrupt:
        done = len(finished(output, runs, iterations))
        typer.echo(f"Stopped with {done} of {len(runs)} runs done. Go on with: {command}")
        raise typer.Exit(130) from None
    print_table(ACCURACY_COLUMNS, [row.accuracy_cells for row in rows if row.results], right=[0])
    print_table(RETRIEVAL_COLUMNS, [row.retrieval_cells for row in rows], right=[0])
    for line in reading_of(rows):
        typer.echo(line)
    for path in write_report(output, rows, command=command):
        typer.echo(path)
