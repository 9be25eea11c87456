"""Draws how p_y and the weights of training samples are distributed from test to test."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import write_each
from imae.reports import pictures
from imae.reports.pictures import picture
from imae.solvers.training_samples import read_sample_record

BANDS = 5
_COLOURS = ["#dce9f3", *(pictures.SERIES[place]["color"] for place in (1, 0, 5, 4))]


def shares(values: Any, edges: Any) -> Any:
    """Return what share of the samples (K x N, NaN left out) lies in each band between edges (B + 1): B x K."""
    values = np.clip(values, edges[0], edges[-1])
    counts = [np.histogram(row[~np.isnan(row)], edges)[0] for row in values]
    return np.array([count / max(1, count.sum()) for count in counts]).T


def draw_samples(record: Path, stem: Path) -> list[Path]:
    """Write `stem`.png and .svg: the shares of samples by p_y and by weight, against iteration; return the paths.

    Intact and corrupted labels stand apart where the record knows them. Raises InputError if it is damaged, or of
    fewer than two tests.
    """
    arrays = read_sample_record(record)
    if arrays["iteration"].size < 2:
        raise InputError(
            f"{record}: holds {arrays['iteration'].size} tests, at least 2 are needed to draw what changes"
        )
    return write_each(stem, picture(lambda width: _draw(arrays, width)).files)


def _draw(arrays: Mapping[str, Any], width: float) -> "pictures.Figure":
    groups = {"all labels": np.ones(arrays["label"].size, bool)}
    if "intact" in arrays:
        intact = arrays["intact"] == arrays["label"]
        groups = {"intact labels": intact, "corrupted labels": ~intact}
        groups = {name: chosen for name, chosen in groups.items() if chosen.any()}
    largest = float(np.nanmax(arrays["weight"], initial=1e-9))
    quantities = {"p_y": np.linspace(0, 1, BANDS + 1), "weight": np.linspace(0, largest, BANDS + 1)}
    columns = len(groups)
    figure, every = pictures.new_figure(
        columns * len(quantities), columns=columns, width=width, x="iteration", y="share of samples, %"
    )
    panels = iter(every)
    for quantity, edges in quantities.items():
        for group, chosen in groups.items():
            axes = next(panels)
            bands = 100 * shares(arrays[quantity][:, chosen], edges)
            labels = [f"{low:.2g} to {high:.2g}" for low, high in itertools.pairwise(edges)]
            axes.stackplot(arrays["iteration"], bands, labels=labels, colors=_COLOURS, linewidth=0)
            axes.set(xlim=(arrays["iteration"][0], arrays["iteration"][-1]), ylim=(0, 100))
            axes.set_title(f"{'$p_y$' if quantity == 'p_y' else 'weight'}, {group}", size=pictures.FONT_SIZE)
            pictures.count_axis(axes)
        handles, labels = axes.get_legend_handles_labels()
        place: dict[str, Any] = {
            "loc": "center left",
            "bbox_to_anchor": (1, 0.5),
            "frameon": False,
            "labelcolor": pictures.INK,
        }
        axes.legend(handles[::-1], labels[::-1], fontsize=pictures.SMALL_FONT_SIZE, **place)
    return figure
