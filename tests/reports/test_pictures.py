"""Pictures: what their axes show, and that curves are told apart, in light and dark, by colour-blind readers too."""

import itertools
from typing import Any

import numpy as np
import pytest

from imae.reports.pictures import (
    DARK,
    LOSS_STYLES,
    NARROW,
    PAPER,
    SERIES,
    WIDE,
    count_axis,
    legend,
    new_figure,
    percent_axis,
    picture,
)

PALETTES = {"losses": list(LOSS_STYLES.values()), "T": SERIES}


def linear(colour: str) -> Any:
    """The linear red, green and blue of a colour."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """As WCAG 2 has it."""
    low, high = sorted(float(linear(colour) @ (0.2126, 0.7152, 0.0722)) + 0.05 for colour in (one, other))
    return high / low


@pytest.mark.parametrize("styles", PALETTES.values(), ids=PALETTES)
def test_every_curve_stands_out_from_the_paper_in_light_and_dark(styles: list[dict[str, Any]]) -> None:
    for style in styles:
        assert contrast(style["color"], PAPER) > 3
        assert contrast(DARK[style["color"]], DARK[PAPER]) > 3


def deuteranope(colour: str) -> Any:
    """The colour in CIE L*a*b* as a reader without green cones sees it (Machado et al. 2009)."""
    seen = np.clip([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]] @ linear(colour), 0, 1)
    xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]] @ seen / (0.9505, 1, 1.089)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("styles", PALETTES.values(), ids=PALETTES)
def test_curves_are_told_apart_without_seeing_green_and_by_dash_or_marker(
    styles: list[dict[str, Any]], dark: bool
) -> None:
    for one, other in itertools.combinations(styles, 2):
        colours = [DARK[style["color"]] if dark else style["color"] for style in (one, other)]
        difference = np.linalg.norm(deuteranope(colours[0]) - deuteranope(colours[1]))
        assert difference > 10, (one, other)
        assert (one["linestyle"], one.get("marker")) != (other["linestyle"], other.get("marker"))


def test_a_picture_is_drawn_for_a_desk_and_for_a_phone_and_the_same_every_time() -> None:
    widths = []

    def draw(width: float) -> Any:
        widths.append(width)
        figure, panels = new_figure(width=width, height=1)
        for axes in panels:
            axes.plot([0, 1], [0, 1], label="a", **LOSS_STYLES["CCE"])
        legend(panels[0])
        return figure

    drawn = picture(draw)
    assert widths == [WIDE, NARROW] and picture(draw) == drawn
    assert f'width="{72 * WIDE:.0f}pt"'.encode() in drawn.svg
    assert f'width="{72 * NARROW:.1f}pt"'.encode() in drawn.narrow
    for svg in (drawn.svg, drawn.narrow):
        assert svg.count(b"@media (prefers-color-scheme:dark)") == 1 and svg.endswith(b"</style>\n</svg>\n")
        assert b"stroke: #0072b2" in svg and b'[style*="stroke: #0072b2"]{stroke:#4aa8e0' in svg
        assert b"<dc:date>" not in svg


def test_panels_stand_beside_each_other_on_a_desk_and_below_each_other_on_a_phone() -> None:
    for width, rows in ((WIDE, 1), (NARROW, 3)):
        figure, panels = new_figure(3, columns=3, width=width, height=2)
        assert len(panels) == 3 and figure.get_figheight() == 2 * rows


@pytest.mark.parametrize("last", [4, 24, 64000])
def test_iterations_have_whole_ticks(last: int) -> None:
    _, (axes,) = new_figure()
    axes.plot([0, last], [0, 1])
    count_axis(axes)
    ticks = axes.get_xticks()
    assert (ticks == ticks.round()).all()
    labels = [tick.get_text() for tick in axes.get_xticklabels()][1:-1]
    assert labels == [f"{tick:,.0f}" for tick in ticks][1:-1]


def test_percentages_fill_their_axis() -> None:
    for values, low, high in (([89.0, 92.5], 88, 94), ([10, 90], 0, 95), ([50], 47, 53), ([0, 100], -1, 101)):
        _, (axes,) = new_figure()
        percent_axis(axes, values)
        bottom, top = axes.get_ylim()
        assert low <= bottom <= min(values) and max(values) <= top <= high
