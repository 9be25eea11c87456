"""Human label noise: CIFAR-10N's five sets of labels (Wei et al., ICLR 2022), each loss trained on each of them."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from imae.experiments.cell import CLASSES, Cell, Divergence, Result
from imae.experiments.curves import draw_test_accuracy
from imae.experiments.page import mean_text
from imae.experiments.paper import LOSSES
from imae.experiments.sweep_page import Outcome, chosen, groups_of, spread, write_sweep_page
from imae.experiments.tables import COLUMNS, QUANTITIES
from imae.layers.data.cifar10_data import load_cifar10
from imae.layers.data.label_noise import Labels, load_labels
from imae.nets.paper import DEPTHS, T_NOISY
from imae.prototxt_like.errors import InputError
from imae.reports.pages import Figure, Heading, Part, Table

LABEL_SETS = ("aggre_label", "random_label1", "random_label2", "random_label3", "worse_label")
"""The vote of three annotators, each of the three, and a wrong one of theirs where there is one."""
HEADER = ("net", "labels", "noise, %", "loss", *COLUMNS)


def human_cells(
    seeds: int, *, depths: Sequence[int] = (), sets: Sequence[str] = (), losses: Sequence[str] = ()
) -> list[Cell]:
    """Return the cells for seeds 1 .. `seeds`, those of the given nets (none: 20), label sets and losses (none: all).

    IMAE has T = 8. Raises InputError for a net, label set or loss that there is not.
    """
    depths = chosen("cifar10n", "--net", depths or DEPTHS[:1], DEPTHS)
    sets = chosen("cifar10n", "--set", sets, LABEL_SETS)
    losses = chosen("cifar10n", "--loss", [loss.upper() for loss in losses], LOSSES)
    return [
        Cell(depth, 0, loss, seed, T=T_NOISY if loss == "IMAE" else None, labels=labels)
        for depth, labels, loss, seed in itertools.product(depths, sets, losses, range(1, seeds + 1))
    ]


def read_label_sets(path: Path, data: Path) -> dict[str, Labels]:
    """Return the label sets of an .npz with the arrays of CIFAR-10N, and, as clean_label, the labels of `data`.

    Raises InputError if an array is missing or damaged, or the file's own clean_label is not that of `data`, as then
    the images are others or in another order.
    """
    clean = load_cifar10(data, True)[1].numpy()
    sets = {name: load_labels(f"{path}:{name}", len(clean), CLASSES) for name in ("clean_label", *LABEL_SETS)}
    if different := np.count_nonzero(sets["clean_label"] != clean):
        raise InputError(
            f"{path}: clean_label differs from the labels of {data} for {different} of {len(clean)} images"
        )
    return sets


def noise_percent(sets: Mapping[str, Labels], name: str, subset: int = 0) -> float:
    """Return how many of the labels `name` differ from the clean ones, of the first `subset` images or (0) of all."""
    wrong = sets[name] != sets["clean_label"]
    return 100 * float(np.mean(wrong[: subset or None]))


def rows_of(
    sets: Mapping[str, Labels], results: Sequence[Result], subset: int, diverged: Sequence[Divergence] = ()
) -> list[list[str]]:
    """Return the rows of a table with `HEADER`; the noise is that of the images trained on."""
    rows = []
    for group in groups_of(results, diverged):
        cell = group.cell
        values = [mean_text(group.values(name)) for name in QUANTITIES]
        noise = f"{noise_percent(sets, cell.labels, subset):.1f}"
        rows.append([f"ResNet-{cell.depth}", cell.labels, noise, group.named(cell.loss), *values])
    return rows


def write_human_noise(sets: Mapping[str, Labels], outcome: Outcome) -> list[Path]:
    """Write `cifar10n`, .html, .md, .png and .svg, into the sweep's folder; return the paths of the pages."""
    sweep, results = outcome.sweep, outcome.results
    drawn = draw_test_accuracy(results, columns=3)
    rates = ", ".join(f"{name} {noise_percent(sets, name):.1f}" for name in LABEL_SETS)
    parts: list[Part] = [
        f"Wrong labels among all {len(sets['clean_label']):,} training images, by CIFAR-10's own labels, %: {rates}.",
        Table(
            HEADER,
            rows_of(sets, results, sweep.schedule.subset, outcome.diverged),
            f"Accuracy, %: {spread(results)}. The noise is measured on the images trained on; the corrupted labels are "
            "the human ones, the intact labels CIFAR-10's own.",
        ),
        Heading("Test accuracy against iteration"),
        Figure("cifar10n", drawn, "Test accuracy, %, mean over the seeds."),
    ]
    return write_sweep_page("cifar10n", "CIFAR-10N: human label noise", parts, outcome)
