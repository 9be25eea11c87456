"""Pages of results: an HTML file that needs no other to be read, the same as Markdown, and an index of a folder's."""

import base64
import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from imae.reports.pictures import Picture


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
    """A table with a title for each column, and a caption. Columns of figures are aligned to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds figures, or means with deviations, or says that there are none."""
        columns = zip(*self.rows, strict=True) if self.rows else [[""]] * len(self.header)
        return [any(column) and all(_NUMBER.fullmatch(cell) for cell in column) for column in columns]


@dataclass(frozen=True)
class Figure:
    """A picture, whose files beside the page are `name`.svg and `name`.png."""

    name: str
    picture: Picture
    caption: str


@dataclass(frozen=True)
class Html:
    """What is put into the HTML as it is: whoever makes it escapes what others wrote. Markdown goes without."""

    text: str


Part = str | Heading | Items | Code | Table | Figure | Html
"""A string is a paragraph; in it, and in items and captions, `words` between backticks are code."""

_NUMBER = re.compile(r"([-+]?[\d,]+(\.\d+)?( ± [\d.]+)?|diverged)?")
_GENERATOR = '<meta name="generator" content="imae">'
_NAV = re.compile(r"<nav>.*?</nav>\n|(?<=<body>\n)", re.DOTALL)
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)


def page_files(name: str, title: str, parts: Sequence[Part], beside: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of a page by their names: `name`.html, with the figures inside, `name`.md, and the figures'.

    `beside` are the texts of the files in the folder that end in .html or .md. Where pages are among them the files
    are more: an index of all pages, and the others with links to it and to this one.
    """
    written = (_markdown_part(part) for part in parts if not isinstance(part, Html))
    markdown = "\n\n".join([f"# {title}", *written]) + "\n"
    figures = [part for part in parts if isinstance(part, Figure)]
    texts = {f"{part.name}.{suffix}": data for part in figures for suffix, data in part.picture.files.items()}
    texts[f"{name}.html"] = page_html(title, parts).encode()
    texts[f"{name}.md"] = markdown.encode()
    pages = {other: text for other, text in beside.items() if _GENERATOR in text and other != "index.html"}
    pages[f"{name}.html"] = texts[f"{name}.html"].decode()
    if len(pages) > 1:
        titles = {page: html.unescape(_TITLE.findall(pages[page])[0]) for page in sorted(pages)}
        texts |= {page: _linked(page, text, titles).encode() for page, text in pages.items()}
        links = "\n".join(f'<li><a href="{page}">{html.escape(name)}</a></li>' for page, name in titles.items())
        texts["index.html"] = page_html("All pages", [Html(f"<ul>\n{links}\n</ul>")]).encode()
        items = (f"- [{name}]({page.removesuffix('html')}md)" for page, name in titles.items())
        texts["index.md"] = "\n".join(["# All pages", "", *items, ""]).encode()
        link = "\n\n[All pages](index.md)\n"
        for page in (f"{page.removesuffix('html')}md" for page in titles):
            text = markdown if page == f"{name}.md" else beside.get(page)
            if text is not None and link not in text:
                texts[page] = text.replace("\n", link, 1).encode()
    return texts


def page_html(title: str, parts: Sequence[Part], *, style: str = "", script: str = "", policy: str = "") -> str:
    """Return a page by itself, with CSS and JavaScript of its own and, if given, a Content-Security-Policy."""
    name, body = html.escape(title), "\n".join(map(_html_part, parts))
    sheet, code = ((files(__package__) / f"page.{suffix}").read_text() for suffix in ("css", "js"))
    policy = policy and f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">\n'
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{policy}<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{_GENERATOR}
<title>{name}</title>
<style>
{sheet}{style}</style>
</head>
<body>
<h1>{name}</h1>
{body}
<script>
{code}{script}</script>
</body>
</html>
"""


def _linked(page: str, text: str, titles: Mapping[str, str]) -> str:
    """The page with links to the index and to the others: by their titles, up to the colon where that is unique."""
    short = {name: title.partition(":")[0] for name, title in titles.items()}
    count = Counter(short.values())
    links = ['<a href="index.html">All pages</a>']
    for name, title in titles.items():
        label = html.escape(short[name] if count[short[name]] == 1 else title)
        links.append(f"<b>{label}</b>" if name == page else f'<a href="{name}">{label}</a>')
    nav = "<nav>\n" + "\n".join(links) + "\n</nav>\n"
    return _NAV.sub(lambda _: nav, text, count=1)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _html_part(part: Part) -> str:
    match part:
        case str():
            return f"<p>{_inline(part)}</p>"
        case Heading(text):
            return f"<h2>{_inline(text)}</h2>"
        case Items(items):
            return "<ul>\n" + "\n".join(f"<li>{_inline(item)}</li>" for item in items) + "\n</ul>"
        case Html(text):
            return text
        case Code(lines):
            # Lines are broken between words, not at the hyphens of an option.
            code = "\n".join(
                re.sub(r"\S+", lambda word: f"<span>{html.escape(word[0])}</span>", line) for line in lines
            )
            return f'<div class="code"><button type="button">Copy</button><pre>{code}</pre></div>'
        case Table(header, rows, caption):
            head = _html_row("th", header, part.numeric)
            body = "\n".join(_html_row("td", row, part.numeric) for row in rows)
            return (
                f'<div class="wide" tabindex="0" role="region" aria-label="{html.escape(caption)}">\n'
                f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>\n"
                f'<p class="caption">{_inline(caption)}</p>'
            )
        case Figure(_, picture, caption):
            wide, narrow = (
                f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}" for svg in (picture.svg, picture.narrow)
            )
            return (
                f'<figure><picture><source media="(max-width: 44rem)" srcset="{narrow}">'
                f'<img alt="{html.escape(caption)}" src="{wide}"></picture>'
                f"<figcaption>{_inline(caption)}</figcaption></figure>"
            )


def _html_row(tag: str, cells: Sequence[str], numeric: Sequence[bool]) -> str:
    text = (
        f"<{tag}{' class=n' if right else ''}>{_inline(cell)}</{tag}>"
        for cell, right in zip(cells, numeric, strict=True)
    )
    return f"<tr>{''.join(text)}</tr>"


def _markdown_part(part: str | Heading | Items | Code | Table | Figure) -> str:
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
            rule = ["---:" if right else "---" for right in part.numeric]
            cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, rule, *rows)]
            return "\n".join(f"| {' | '.join(row)} |" for row in cells) + f"\n\n{caption}"
        case Figure(name, _, caption):
            return f"![{caption}]({name}.png)\n\n{caption}"
