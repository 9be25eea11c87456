"""`imae demo`: the losses compared on real digits, and which labels were wrong, in a few minutes."""

from pathlib import Path
from typing import Annotated

from imae.cli.options import LARGEST_SEED, Threads, load_torch, number, option


def demo(
    output: Annotated[Path, option("FOLDER", "Where logs, snapshots and results go.")] = Path("digits-demo"),
    seed: Annotated[int, number("The seed of weights and order.", 0, LARGEST_SEED)] = 1,
    threads: Threads = None,
) -> None:
    """Train on digits with each loss, and tell which labels are wrong.

    To begin with, half of the labels are replaced at random, 42.7 % are then wrong.

    [bold]imae demo --output digits-demo[/]
    """
    load_torch(threads)
    from rich.console import Console

    from imae.experiments.demo import run

    run(output, seed, Console())
