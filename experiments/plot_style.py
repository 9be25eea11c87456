"""The one style of the project's figures: colours, sizes, and how a figure is written."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imae.prototxt_like.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of Okabe and Ito, told apart by colour-blind readers; the dashes tell the losses apart in grey.
LOSS_COLOURS = {"CCE": "#0072B2", "MAE": "#CC79A7", "GCE": "#009E73", "IMAE": "#D55E00"}
LOSS_STYLES: dict[str, dict[str, Any]] = {
    "CCE": {"color": LOSS_COLOURS["CCE"], "linestyle": (0, (6, 2))},
    "MAE": {"color": LOSS_COLOURS["MAE"], "linestyle": (0, (4, 1.5, 1, 1.5))},
    "GCE": {"color": LOSS_COLOURS["GCE"], "linestyle": (0, (1.5, 1.5))},
    "IMAE": {"color": LOSS_COLOURS["IMAE"], "linestyle": "solid"},
}
FONT_SIZE = 9  # points
SMALL_FONT_SIZE = 8
LINE_WIDTH = 1.5
INK = "#262626"
GRID = "#E3E3E3"
DPI = 150


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float = 4.2, height: float = 2.8, x: str = "", y: str = ""
) -> "tuple[Figure, list[Axes]]":
    """Return a figure and its `rows` x `columns` axes, row by row; `width` and `height` are a panel's, in inches.

    `x` and `y` label the axes. Independent of matplotlib's global state and of any display.
    """
    from cycler import cycler
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_prop_cycle(cycler(color=list(LOSS_COLOURS.values())) * cycler(linewidth=[LINE_WIDTH]))
        axes.set_axisbelow(True)
        axes.grid(color=GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set(color=INK, linewidth=0.8)
        axes.tick_params(labelsize=SMALL_FONT_SIZE, colors=INK, width=0.8, length=3)
        axes.set_xlabel(x, size=FONT_SIZE, color=INK)
        axes.set_ylabel(y, size=FONT_SIZE, color=INK)
        axes.title.set(size=FONT_SIZE, color=INK)
    return figure, panels


def sequence(count: int) -> list[tuple[float, ...]]:
    """Return `count` colours from dark to light for curves that an ordered quantity tells apart."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * step / max(count - 1, 1)) for step in range(count)]


def legend(axes: "Axes", title: str | None = None, *, outside: bool = False) -> None:
    """Add a legend, where there is room or `outside`, to the right of the panel."""
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)} if outside else {"loc": "best"}
    box = axes.legend(
        title=title,
        fontsize=SMALL_FONT_SIZE,
        title_fontsize=SMALL_FONT_SIZE,
        labelcolor=INK,
        facecolor="white",
        edgecolor="none",
        framealpha=1,
        handlelength=2.6,
        **place,
    )
    box.get_title().set_color(INK)


def save(figure: "Figure", stem: str | os.PathLike[str]) -> list[Path]:
    """Write `stem`.png (150 dots an inch) and `stem`.svg, the same bytes for the same figure; return their paths.

    Raises InputError if a file cannot be written.
    """
    import matplotlib

    paths = []
    # Neither dates nor versions, and ids in the SVG that do not change from run to run.
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "imae"}):
            figure.savefig(buffer, format=suffix, dpi=DPI, metadata=metadata)
        paths.append(Path(f"{os.fspath(stem)}.{suffix}"))
        write_atomically(paths[-1], buffer.getvalue())
    return paths
