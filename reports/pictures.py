"""The one style of the project's pictures: colours, sizes, and how a figure becomes SVG and PNG."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure

WIDE, NARROW = 9.0, 3.8
"""Inches, each of 96 pixels: the column of a page on a desk, and on a phone. Text is read at the size it is drawn."""
SMALL = 4.2  # inches: a picture by itself
FONT_SIZE = 9.5  # points
SMALL_FONT_SIZE = 8.5
LINE_WIDTH = 1.6
DPI = 150
INK, GRID, PAPER, FAINT = "#262626", "#e3e3e3", "#ffffff", "#6b6b6b"

# Near those of Okabe and Ito, told apart by colour-blind readers; dashes and markers tell them apart in grey.
LOSS_COLOURS = {"CCE": "#0072b2", "MAE": "#b5578f", "GCE": "#008f68", "IMAE": "#d55e00"}
_DASHES = {"CCE": (0, (6, 2)), "MAE": (0, (4, 1.5, 1, 1.5)), "GCE": (0, (1.5, 1.5)), "IMAE": "solid"}
LOSS_STYLES: dict[str, dict[str, Any]] = {
    loss: {"color": colour, "linestyle": _DASHES[loss]} for loss, colour in LOSS_COLOURS.items()
}
SERIES: list[dict[str, Any]] = [
    {"color": colour, "linestyle": dash, "marker": marker, "markersize": 4, "markevery": 0.2}
    for colour, dash, marker in (
        ("#8e8e8e", (0, (1.5, 1.5)), "x"),
        ("#0f72e3", "solid", "o"),
        ("#0b3147", (0, (6, 2)), "s"),
        ("#004117", (0, (4, 1.5, 1, 1.5)), "^"),
        ("#865a16", (0, (3, 1)), "D"),
        ("#f86010", "solid", "v"),
        ("#cc45c6", (0, (6, 2)), "P"),
    )
]
"""Styles of curves that a quantity of seven values tells apart, from cold to warm as it grows."""

DARK = {
    INK: "#e8e8e8",
    GRID: "#3a3f45",
    PAPER: "#15181c",
    FAINT: "#a3a3a3",
    "#0072b2": "#4aa8e0",
    "#b5578f": "#e39cc6",
    "#008f68": "#2fc79a",
    "#d55e00": "#ff8a3d",
    "#8e8e8e": "#6e6e6e",
    "#0f72e3": "#6d87d8",
    "#0b3147": "#85ebfe",
    "#004117": "#59e8a6",
    "#865a16": "#c6d113",
    "#f86010": "#d54e39",
    "#cc45c6": "#9d16f5",
    "#dce9f3": "#22384a",
}
"""What stands for each colour where the reader's screen is dark."""


@dataclass(frozen=True)
class Picture:
    """A figure drawn for a page: as SVG for a desk and for a phone, which follow the reader's dark mode, and as PNG."""

    svg: bytes
    narrow: bytes
    png: bytes

    @property
    def files(self) -> dict[str, bytes]:
        """What is kept beside a page, by suffix."""
        return {"png": self.png, "svg": self.svg}


def picture(draw: "Callable[[float], Figure]", width: float = WIDE) -> Picture:
    """Return what `draw`, called with a width in inches, draws: the same bytes for the same figure."""
    wide = draw(width)
    return Picture(_svg(wide), _svg(draw(min(width, NARROW))), _bytes(wide, "png", {"Software": None}))


def new_figure(
    panels: int = 1, *, columns: int = 1, width: float = WIDE, height: float = 2.8, x: str = "", y: str = ""
) -> "tuple[Figure, list[Axes]]":
    """Return a figure of `width` and the axes of its panels, row by row, each `height` high, in inches.

    There are `columns` panels in a row or as many as can be read. `x` and `y` label the axes. Independent of
    matplotlib's global state and of any display.
    """
    from cycler import cycler
    from matplotlib.figure import Figure

    columns = max(1, min(columns, panels, int(width / 2.6)))
    rows = -(-panels // columns)
    figure = Figure(figsize=(width, rows * height), layout="constrained")
    every: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in every[panels:]:
        axes.set_axis_off()
    for axes in every[:panels]:
        axes.set_prop_cycle(cycler(color=list(LOSS_COLOURS.values())) * cycler(linewidth=[LINE_WIDTH]))
        axes.set_axisbelow(True)
        axes.grid(color=GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set(color=INK, linewidth=0.8)
        axes.tick_params(labelsize=SMALL_FONT_SIZE, colors=INK, width=0.8, length=3)
        axes.set_xlabel(x, size=FONT_SIZE, color=INK)
        axes.set_ylabel(y, size=FONT_SIZE, color=INK)
        axes.title.set(size=FONT_SIZE, color=INK)
    return figure, every[:panels]


def count_axis(axes: "Axes") -> None:
    """Have the x axis count: whole numbers only, as 10,000."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def percent_axis(axes: "Axes", values: Sequence[float]) -> None:
    """Have the y axis show the differences between percentages: their range and a little more, 5 points at least."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(values), max(values)
    more = max(0.06 * (high - low), (5 - (high - low)) / 2)
    axes.set_ylim(max(low - more, -1), min(high + more, 101))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))


def legend(axes: "Axes", title: str | None = None) -> None:
    """Add a legend of the curves in `axes` below the figure, where it covers none."""
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    assert figure is not None
    entry = 0.55 + 0.07 * max(map(len, labels))  # inches
    rows = -(-len(labels) // max(1, int(figure.get_figwidth() / entry)))
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=-(-len(labels) // rows),
        title=title,
        fontsize=SMALL_FONT_SIZE,
        title_fontproperties={"size": SMALL_FONT_SIZE},
        labelcolor=INK,
        frameon=False,
        handlelength=3,
    ).get_title().set_color(INK)


def _svg(figure: "Figure") -> bytes:
    """The figure as SVG, with a style by which browsers replace its colours where the screen is dark."""
    rules = "".join(
        f'[style*="{name}: {light}"]{{{name}:{dark}!important}}'
        for light, dark in DARK.items()
        for name in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>\n</svg>\n"
    plain = _bytes(figure, "svg", {"Date": None, "Creator": None})
    return plain.removesuffix(b"</svg>\n") + style.encode()


def _bytes(figure: "Figure", format: str, metadata: dict[str, None]) -> bytes:
    """The figure without dates and versions, and with ids that do not change from run to run."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "imae"}):
        figure.savefig(buffer, format=format, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
