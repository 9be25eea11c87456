"""`imae reproduce digits-retrieval`: what features learned from wrong labels are worth on digits never trained on."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import typer

from imae.cli.options import load_torch
from imae.cli.progress import Display
from imae.cli.sweep_options import SweepOptions
from imae.cli.table import print_table

SEEDS, ITERATIONS = 3, 200  # iterations of 128 images: each of the 630 is seen 40 times, as in `imae demo`


def digits_retrieval(options: SweepOptions, noise: Sequence[int], loss: Sequence[str]) -> None:
    """Train with each loss, score the features, and write the page; each result stays on disk."""
    load_torch()
    from imae.experiments import digits_retrieval as experiment

    seeds, iterations = options.seeds or SEEDS, options.iterations or ITERATIONS
    output = options.output or Path("digits-retrieval")
    runs = experiment.select_runs(noise, loss, seeds)
    words = ["imae", "reproduce", "digits-retrieval"]
    for name, values in (
        ("--noise", dict.fromkeys(run.noise for run in runs)),
        ("--loss", dict.fromkeys(run.loss for run in runs)),
        ("--seeds", [seeds]),
        ("--iterations", [iterations]),
        ("--output", [output]),
    ):
        words += [str(word) for value in values for word in (name, value)]
    command = shlex.join(words)
    try:
        with Display() as display:
            rows = experiment.compare(output, runs, iterations, progress=display.advance, show=display.show)
    except KeyboardInterrupt:
        done = len(experiment.saved_results(output, runs, iterations))
        typer.echo(f"Stopped with {done} of {len(runs)} runs done. Go on with: {command}")
        raise typer.Exit(130) from None
    print_table(experiment.ACCURACY_COLUMNS, [row.accuracy_cells for row in rows if row.results], right=[0])
    print_table(experiment.RETRIEVAL_COLUMNS, [row.retrieval_cells for row in rows], right=[0])
    for line in experiment.reading_of(rows):
        typer.echo(line)
    for path in experiment.write_report(output, rows, command=command):
        typer.echo(path)
