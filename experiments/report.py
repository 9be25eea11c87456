"""Pages of results: one HTML file that needs nothing beside it, and the same as Markdown."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imae.prototxt_like.files import read_bytes, write_atomically

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #262626; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; margin: 1rem 0; }
caption { caption-side: bottom; text-align: left; padding-top: .4rem; color: #555; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #e3e3e3; }
th { border-bottom: 2px solid #262626; }
img { max-width: 100%; }
figure { margin: 1rem 0; }
figcaption { color: #555; }
pre { background: #f5f5f5; padding: .6rem; overflow-x: auto; }
"""


@dataclass(frozen=True)
class Heading:
    """The title of a section."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Lines to be shown as they are, such as commands."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table with a title for each column, and a caption."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str


@dataclass(frozen=True)
class Figure:
    """A figure from its SVG and PNG files, `stem`.svg and `stem`.png, which lie beside the page."""

    stem: Path
    caption: str


Part = str | Heading | Items | Code | Table | Figure
"""A string is a paragraph."""


def write_page(stem: Path, title: str, parts: Sequence[Part]) -> list[Path]:
    """Write `stem`.html, with the figures inside, and `stem`.md, which points to their PNG files; return both paths.

    Raises InputError if a figure cannot be read or a file cannot be written.
    """
    pages = {
        stem.with_name(f"{stem.name}.html"): _html(title, parts),
        stem.with_name(f"{stem.name}.md"): "\n\n".join([f"# {title}", *map(_markdown_part, parts)]) + "\n",
    }
    for path, text in pages.items():
        write_atomically(path, text.encode())
    return list(pages)


def _html(title: str, parts: Sequence[Part]) -> str:
    name = html.escape(title)
    head = f'<meta charset="utf-8">\n<title>{name}</title>\n<style>{_STYLE}</style>'
    body = "\n".join([f"<h1>{name}</h1>", *map(_html_part, parts)])
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _html_part(part: Part) -> str:
    match part:
        case str():
            return f"<p>{html.escape(part)}</p>"
        case Heading(text):
            return f"<h2>{html.escape(text)}</h2>"
        case Items(items):
            return "<ul>\n" + "\n".join(f"<li>{html.escape(item)}</li>" for item in items) + "\n</ul>"
        case Code(lines):
            return f"<pre>{html.escape(chr(10).join(lines))}</pre>"
        case Table(header, rows, caption):
            lines = [_html_row("th", header), *(_html_row("td", row) for row in rows)]
            inside = "\n".join([f"<caption>{html.escape(caption)}</caption>", *lines])
            return f'<div class="wide"><table>\n{inside}\n</table></div>'
        case Figure(stem, caption):
            text, svg = html.escape(caption), base64.b64encode(read_bytes(f"{stem}.svg")).decode()
            image = f'<img alt="{text}" src="data:image/svg+xml;base64,{svg}">'
            return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _markdown_part(part: Part) -> str:
    match part:
        case str():
            return part
        case Heading(text):
            return f"## {text}"
        case Items(items):
            return "\n".join(f"- {item}" for item in items)
        case Code(lines):
            return "\n".join(["```", *lines, "```"])
        case Table(header, rows, caption):
            cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, ["---"] * len(header), *rows)]
            return "\n".join(f"| {' | '.join(row)} |" for row in cells) + f"\n\n{caption}"
        case Figure(stem, caption):
            return f"![{caption}]({stem.name}.png)\n\n{caption}"
