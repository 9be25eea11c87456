"""`report.html`: what an audit found, as one page that needs neither network nor other files."""

import base64
import csv
import html
import io
import json
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imae.audit.result import Result, read_result, review_command
from imae.audit.samples import Samples
from imae.audit.thumbnails import Thumbnails
from imae.layers.data.data_layer import readers
from imae.prototxt_like.csv_file import original
from imae.prototxt_like.errors import counted
from imae.prototxt_like.files import read_bytes, write_atomically
from imae.reports.pages import Code, Figure, Heading, Html, Items, Part, Table, page_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

MOST_PICTURES, MOST_ROWS = 500, 2000
"""Suspects that are shown: with pictures, and in all."""
FIRST_OF_PAIR = 3
"""Pictures that each pair of classes has, where it can."""
SIDE = 128
"""Pixels of the longer side of a picture."""
MOST_CLASSES = 20
"""Of the matrix: the rows and columns in which most labels are wrong."""
MOST_LISTED = 50
"""Rows of the tables."""
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""The browser, too, keeps the page from asking for anything."""

Progress = Callable[[int, int], None]


def write_report(
    folder: Path,
    command: str,
    samples: Samples | None = None,
    *,
    threads: int | None = None,
    on_progress: Progress = lambda done, total: None,
) -> Path:
    """Write the page of the audit in `folder`; return its path.

    `command` is the one that goes on with the audit, `samples` are those of the audit, where they are at hand;
    `threads` image files are read at a time, without it as many as there are cores.
    """
    result, summary = read_result(folder)
    found = len(result.suspects) > 0
    thumbnails = Thumbnails(result, samples)
    parts: list[Part] = [
        *_headline(result, summary),
        *(_suspects(result, thumbnails, threads, on_progress) if found else []),
        *_confusions(result, summary),
        Heading("How many to look at"),
        _curve(result),
        _thresholds(result),
        *_findings(result, summary),
        *_next(result, command),
    ]
    style, script = ((files(__package__) / f"report.{suffix}").read_text() for suffix in ("css", "js"))
    title = f"Labels of {result.source}"
    text = page_html(title, parts, style=style, script=script if found else "", policy=POLICY)
    write_atomically(folder / "report.html", text.encode(errors="replace"))
    return folder / "report.html"


def _headline(result: Result, summary: dict[str, Any]) -> list[Part]:
    rate, picked = summary["noise_rate"], summary["picked"]
    total, suspects = len(result.names), result.suspects
    among, count = "", f"{rate['value'] * total:,.0f}"
    if rate["low"] is not None:
        among = f" ({100 * rate['low']:.1f} to {100 * rate['high']:.1f} %, by resampling)"
        count += f" ({rate['low'] * total:,.0f} to {rate['high'] * total:,.0f})"
    expected = result.scores["p_wrong"][suspects].sum()
    parameter = {"IMAE": "T", "GCE": "q"}.get(picked["loss"])
    setting = f", {parameter} = {picked['parameter']:g}" if parameter else ""
    stopped = ["The audit was stopped early: this is of what had been read by then."] if summary["stopped"] else []
    doubt = [f"{summary['doubt']}."] if summary["doubt"] else []
    return [
        *stopped,
        *doubt,
        Items(
            [
                f"About {100 * rate['value']:.1f} %{among} of {total:,} labels of "
                f"{counted(len(result.classes), 'class')} are wrong: {count}.",
                f"{len(suspects):,} are suspects, of which {expected:,.0f} are expected to be wrong."
                if len(suspects)
                else "None is so suspicious that it should be looked at.",
                f"{counted(summary['duplicates'], 'pair')} of near duplicates with different labels, "
                f"{counted(summary['unreadable'], 'unreadable image')}.",
                f"Trained by {picked['loss']}{setting}; it predicts {100 * picked['accuracy_held_out']:.1f} % of the "
                "labels that were held out.",
            ]
        ),
    ]


def _suspects(result: Result, thumbnails: Thumbnails, threads: int | None, on_progress: Progress) -> list[Part]:
    shown = result.suspects[:MOST_ROWS].tolist()
    items: list[dict[str, Any]] = [
        {
            "rank": rank,
            "name": result.names[i],
            **{name: int(result.scores[name][i]) for name in ("label", "suggested")},
            **{name: round(float(result.scores[name][i]), 4) for name in ("score", "p_wrong", "p_suggested")},
        }
        for rank, i in enumerate(shown, 1)
    ]
    if thumbnails:
        with readers("thumbnails", threads) as pool:
            places = _pictured(items)
            pictures = pool.map(lambda place: thumbnails.of(shown[place], SIDE), places)
            for done, (place, picture) in enumerate(zip(places, pictures, strict=True), 1):
                if picture:
                    items[place]["image"] = f"data:{picture[0]};base64,{base64.b64encode(picture[1]).decode()}"
                on_progress(done, len(places))
    data = json.dumps({"classes": result.classes, "items": items, "total": len(result.suspects)}).replace(
        "<", "\\u003c"
    )
    rest = len(result.suspects) - len(shown)
    more = [f"{rest:,} more suspects are in `suspects.csv`, {len(result.suspects):,} in all."] if rest else []
    kind = "" if thumbnails else " class=rows"
    body = [
        "<noscript><p>Without JavaScript: see suspects.csv.</p></noscript>",
        f'{_FILTER}<ul id="cards"{kind}></ul>',
        '<button id="more" type="button" hidden>Show more</button>',
        f'<script type="application/json" id="suspects">{data}</script>',
    ]
    return [Heading("Suspects"), Html("\n".join(body)), *more]


def _pictured(items: Sequence[dict[str, Any]]) -> list[int]:
    """Places of suspects that get a picture: the first of each pair of classes, and then by suspicion."""
    seen: Counter[tuple[int, int]] = Counter()
    later = []
    for place, item in enumerate(items):
        pair = item["label"], item["suggested"]
        seen[pair] += 1
        later.append((seen[pair] > FIRST_OF_PAIR, place))
    return [place for _, place in sorted(later)[:MOST_PICTURES]]


_FILTER = """<form id="filter" role="search" aria-label="Suspects">
<label>Label → suggestion <select id="pair"><option value="">all</option></select></label>
<label><span>Wrong with at least <output id="least-is">0.00</output></span>
<input id="least" type="range" min="0" max="1" step="0.01" value="0"></label>
<label>Search <input id="search" type="search" placeholder="name or class"></label>
<label>Sorted by <select id="order"><option value="score">suspicion</option><option value="pair">class pair</option>
<option value="suggested">the suggestion's probability</option><option value="name">name</option></select></label>
</form>
<p id="count" class="caption" role="status"></p>
"""


def _confusions(result: Result, summary: dict[str, Any]) -> list[Part]:
    """The matrix, where there is one, and the pairs of classes with the most suspects."""
    suspects, matrix = result.suspects, summary["transition"]
    label, suggested = (result.scores[name][suspects] for name in ("label", "suggested"))
    pairs = Counter(zip(label.tolist(), suggested.tolist(), strict=True))
    expected: dict[tuple[int, int], float] = dict.fromkeys(pairs, 0.0)
    for y, t, p in zip(label.tolist(), suggested.tolist(), result.scores["p_wrong"][suspects].tolist(), strict=True):
        expected[y, t] += p
    counts = np.array(summary["samples_per_class"])
    rows = [
        [
            f"{result.classes[y]} → {result.classes[t]}",
            f"{count:,}",
            f"{expected[y, t]:,.0f}",
            f"{counts[y]:,}",
            *([_percent(matrix, t, y)] if matrix else []),
        ]
        for (y, t), count in pairs.most_common(MOST_LISTED)
    ]
    header = ["label → suggestion", "suspects", "expected wrong", "samples with the label"]
    caption = "The pairs of classes with the most suspects."
    parts: list[Part] = []
    if matrix:
        header.append("of the true class, in %")
        caption += " Last column: which part of the suggested class has that label, with its interval by resampling."
        parts += _matrix([html.escape(name) for name in result.classes], matrix, pairs)
    if rows:
        parts.append(Table(header, rows, caption))
    return [Heading("Which classes are taken for which"), *parts] if parts else []


def _matrix(names: Sequence[str], matrix: dict[str, Any], pairs: Mapping[tuple[int, int], int]) -> list[Part]:
    """The matrix of the classes that are most often taken for others."""
    value = np.array(matrix["value"])
    wrong = value - np.diag(np.diag(value))
    kept = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:MOST_CLASSES])
    head = "".join(f'<th scope="col" title="{names[j]}"><span>{names[j]}</span></th>' for j in kept)
    rows = []
    for i in kept:
        cells = "".join(f"<td>{_cell(matrix, names, i, j, (int(j), int(i)) in pairs)}</td>" for j in kept)
        rows.append(f'<tr><th scope="row" title="{names[i]}">{names[i]}</th>{cells}</tr>')
    left_out = len(names) - len(kept)
    buttons = " A button shows these suspects." if pairs else ""
    only = f" The {len(kept)} classes of {len(names)} that most often are, or stand for, another." if left_out else ""
    return [
        Html(
            '<div class="wide matrix" tabindex="0" role="region" aria-label="Which classes are taken for which">'
            f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        ),
        Html(
            '<p class="caption">Row: true class; column: label. Of 100 samples of the row\'s class, how many have the '
            f"column's label.{buttons}{only}</p>"
        ),
    ]


def _cell(matrix: dict[str, Any], names: Sequence[str], i: int, j: int, found: bool) -> str:
    part = 100 * matrix["value"][i][j]
    text = f"{part:.0f}" if part >= 0.95 or i == j else f"{part:.1f}" if part >= 0.05 else "·"
    said = f"of the class {names[i]}, {_percent(matrix, i, j)} % are labelled {names[j]}"
    style = f'style="--part:{min(100, part if i == j else 2 * part):.0f}" title="{said}"'
    if found:
        return f'<button type="button" data-pair="{j},{i}" {style} aria-label="{said}">{text}</button>'
    return f'<span class="cell" {style}>{text}</span>'


def _percent(matrix: dict[str, Any], i: int, j: int) -> str:
    value = f"{100 * matrix['value'][i][j]:.1f}"
    if matrix["low"] is None:
        return value
    return f"{value} ({100 * matrix['low'][i][j]:.1f} to {100 * matrix['high'][i][j]:.1f})"


def _curve(result: Result) -> Figure:
    """How many of the most suspicious labels are expected to be wrong."""
    from imae.reports.pictures import INK, SMALL_FONT_SIZE, count_axis, new_figure, picture

    p = np.sort(result.scores["p_wrong"])[::-1]
    total = np.concatenate([[0], np.cumsum(p)])
    points = np.unique(np.linspace(0, len(p), 400).astype(int))
    issues = len(result.suspects)

    def draw(width: float) -> "Drawing":
        figure, (axes,) = new_figure(width=width, x="the most suspicious labels", y="expected to be wrong")
        axes.plot(points, total[points], color="#d55e00")
        axes.plot([0, total[-1]], [0, total[-1]], color="#8e8e8e", linestyle=(0, (1.5, 1.5)), linewidth=1)
        if issues:
            axes.plot([issues], [total[issues]], "o", color="#0072b2", markersize=5)
            axes.annotate(
                f"{issues:,} suspects, {total[issues]:,.0f} wrong",
                (issues, total[issues]),
                (8, -12),
                textcoords="offset points",
                size=SMALL_FONT_SIZE,
                color=INK,
            )
        axes.set_xlim(0)
        axes.set_ylim(0)
        count_axis(axes)
        return figure

    caption = "How many of the first so many labels are expected to be wrong; dotted: if all were, until none is left."
    return Figure("curve", picture(draw), caption)


def _thresholds(result: Result) -> Table:
    """What dropping and relabelling by thresholds would do."""
    scores = result.scores
    rows = [
        [
            f"{p:g}",
            *(
                cell
                for name in ("p_wrong", "p_suggested")
                for above in [scores[name] > p]
                for cell in (f"{above.sum():,}", f"{scores[name][above].sum():,.0f}")
            ),
        ]
        for p in THRESHOLDS
    ]
    return Table(
        ["above", "dropped", "of which wrong", "relabelled", "of which rightly"],
        rows,
        "What `--drop-above` and `--relabel-above`, each by itself, would do, and how much of it rightly.",
    )


def _findings(result: Result, summary: dict[str, Any]) -> list[Part]:
    parts: list[Part] = []
    if summary["merged_classes"]:
        parts += [
            Heading("Classes that look like one"),
            Items(
                [
                    f"{' and '.join(pair['classes'])}: {100 * pair['taken_for_each_other']:.0f} of 100 are taken "
                    "for the other"
                    for pair in summary["merged_classes"]
                ]
            ),
        ]
    if summary["undecided_classes"]:
        told = [
            f"{pair['class']}: {pair['label']} is about as usual a label of it, and nothing tells which is wrong"
            for pair in summary["undecided_classes"]
        ]
        parts += [Heading("Classes of which the audit can say nothing"), Items(told)]
    for file, title in (
        ("duplicates.csv", "Near duplicates with different labels"),
        ("unreadable.csv", "Images that cannot be read"),
    ):
        header, *rows = _read(result.folder / file)
        if rows:
            caption = (
                f"{counted(len(rows), 'row')} in {file}{f', the first {MOST_LISTED}' * (len(rows) > MOST_LISTED)}."
            )
            parts += [Heading(title), Table(header, rows[:MOST_LISTED], caption)]
    return parts


def _read(path: Path) -> list[list[str]]:
    """The rows of a CSV of ours."""
    text = read_bytes(path).decode(errors="surrogateescape")
    rows = csv.reader(io.StringIO(text, newline=""))
    return [[original(cell) for cell in row] for row in rows]


def _next(result: Result, command: str) -> list[Part]:
    folder = shlex.quote(str(result.folder))
    parts: list[Part] = [
        Heading("What to do next"),
        "Look at the most suspicious, one by one: a key keeps, relabels or drops, whatever the thresholds say.",
        Code([review_command(result.folder, len(result.suspects))]),
        "Have labels changed by thresholds, the table above helps to find them: `cleaned.csv` follows.",
        Code([f"{command} --relabel-above 0.9 --drop-above 0.8"]),
    ]
    if result.root is not None:
        parts += [
            "Train on what is left, by the same loss:",
            Code(
                [
                    f"imae init {folder}/cleaned.txt training --root {shlex.quote(str(result.root))}",
                    "imae train --solver training/solver.prototxt",
                ]
            ),
        ]
    return [*parts, "Before you drop or relabel many: docs/audit.md says when not to trust an audit."]
