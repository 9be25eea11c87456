"""Draws docs/house.svg: the packages and which may import which, from the table in tests/test_import_graph.py.

python docs/house.py
"""

import functools
import runpy
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from imae.prototxt_like.files import write_atomically
from imae.reports.pictures import DARK, FAINT, INK, PAPER

ROOT = Path(__file__).resolve().parents[1]
JOBS = {
    "cli": "the imae command",
    "experiments": "the paper's tables and figures",
    "audit": "labels that are wrong",
    "examples": "nets and solvers",
    "pycaffe": "Caffe's Python interface",
    "solvers": "the training loop",
    "reports": "pictures and pages",
    "nets": "the graph and its plan",
    "layers": "forward and backward",
    "prototxt_like": "Caffe's formats",
}
COMPUTES = {"solvers", "nets", "layers"}
TINT = "#dce9f3"
"""Fills the packages that compute."""
WIDE, HIGH, GAP, MARGIN = 206, 48, 34, 14  # pixels, as all lengths here

Table = Mapping[str, AbstractSet[str]]
Point = tuple[float, float]


@functools.cache
def table() -> dict[str, set[str]]:
    """Return each package with those that it may import."""
    found: dict[str, set[str]] = runpy.run_path(str(ROOT / "tests" / "test_import_graph.py"))["LAYERED"]
    return found


def arrows(imports: Table) -> list[tuple[str, str]]:
    """Return the imports that are left when those that follow from others are left out."""
    return [
        (package, below)
        for package, all_below in imports.items()
        for below in sorted(all_below)
        if not any(below in imports[between] for between in all_below)
    ]


def corners(imports: Table) -> dict[str, Point]:
    """Return where each package's box begins.

    A package is one row below the lowest that may import it. In a row the one that may import most stands in the
    middle, what imports nothing at its right, and the others at its left.
    """
    rows: dict[str, int] = {}
    for package in sorted(imports, key=lambda package: len(imports[package]), reverse=True):
        rows[package] = 1 + max((rows[above] for above in imports if package in imports[above]), default=-1)
    places: dict[str, tuple[int, int]] = {}
    for row in range(1 + max(rows.values())):
        middle, *others = sorted(
            (package for package in imports if rows[package] == row), key=lambda package: -len(imports[package])
        )
        places[middle] = 0, row
        for i, package in enumerate((package for package in others if imports[package]), 1):
            places[package] = -i, row
        for i, package in enumerate((package for package in others if not imports[package]), 1):
            places[package] = i, row
    first = min(column for column, _ in places.values())
    return {
        package: (MARGIN + (column - first) * (WIDE + GAP), MARGIN + row * (HIGH + GAP))
        for package, (column, row) in places.items()
    }


def way(start: Point, end: Point) -> list[Point]:
    """Return the corners of an arrow between two boxes, given by where they begin: along one row, down one column."""
    (x, y), (x1, y1) = start, end
    middle, target = x + WIDE / 2, x1 + WIDE / 2
    if x == x1:
        return [(middle, y + HIGH), (target, y1)]
    if y1 - y <= HIGH + GAP:  # to a box at the side of the row below: aside first, then down
        return [(x if x1 < x else x + WIDE, y + HIGH / 2), (target, y + HIGH / 2), (target, y1)]
    return [(middle, y + HIGH), (middle, y1 + HIGH / 2), (x1 if x1 > x else x1 + WIDE, y1 + HIGH / 2)]


def draw(imports: Table) -> str:
    """Return the picture as SVG, light or dark as the reader's screen is."""
    boxes = corners(imports)
    width = max(x for x, _ in boxes.values()) + WIDE + MARGIN
    height = max(y for _, y in boxes.values()) + HIGH + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="13" text-anchor="middle" role="img">',
        "<title>The packages of imae, and which may import which</title>",
        "<style>",
        *_rules(PAPER, TINT, INK, FAINT),
        f"@media (prefers-color-scheme: dark) {{ {' '.join(_rules(*(DARK[c] for c in (PAPER, TINT, INK, FAINT))))} }}",
        "</style>",
        '<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="head" d="M0,0 L8,4 L0,8 z"/></marker>',
        f'<rect class="paper" width="{width}" height="{height}"/>',
    ]
    for package, below in arrows(imports):
        points = " ".join(f"{x:g},{y:g}" for x, y in way(boxes[package], boxes[below]))
        lines.append(f'<polyline class="arrow" data-from="{package}" data-to="{below}" points="{points}"/>')
    for package, (x, y) in boxes.items():
        kind = "computes" if package in COMPUTES else "paper"
        lines += [
            f'<rect class="box {kind}" x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="6"/>',
            f'<text class="name" x="{x + WIDE / 2:g}" y="{y + 20}">{package}</text>',
            f'<text class="job" x="{x + WIDE / 2:g}" y="{y + 38}">{JOBS[package]}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def _rules(paper: str, computes: str, ink: str, faint: str) -> list[str]:
    return [
        f".paper {{ fill: {paper}; }}",
        f".computes {{ fill: {computes}; }}",
        f".box {{ stroke: {ink}; }}",
        f".arrow {{ stroke: {ink}; fill: none; marker-end: url(#head); }}",
        f".name, .head {{ fill: {ink}; }}",
        ".name { font-weight: bold; }",
        f".job {{ fill: {faint}; font-size: 12px; }}",
    ]


if __name__ == "__main__":
    write_atomically(ROOT / "docs" / "house.svg", draw(table()).encode())
