"""Pages: one file with all in it, for desk and phone, dark and light, with links to the others of a folder."""

import re
from pathlib import Path

import pytest

from imae.reports.pages import Code, Figure, Heading, Items, Part, Table, page_files
from imae.reports.pictures import Picture

PICTURE = Picture(b"<svg>wide</svg>", b"<svg>narrow</svg>", b"png")


def page(*parts: Part) -> tuple[str, str]:
    """A page's HTML and Markdown."""
    files = page_files("page", "A title", parts, {})
    return files["page.html"].decode(), files["page.md"].decode()


def test_a_page_fits_a_phone_and_follows_dark_mode() -> None:
    html, _ = page("Text")
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "@media (prefers-color-scheme: dark)" in html
    assert '<meta name="color-scheme" content="light dark">' in html


def test_a_figure_is_inside_once_for_a_desk_and_once_for_a_phone() -> None:
    files = page_files("page", "A title", [Figure("figure", PICTURE, "A & B")], {})
    assert files["figure.svg"] == PICTURE.svg and files["figure.png"] == PICTURE.png
    html = files["page.html"].decode()
    sources = re.findall(r'(?:src|srcset)="(.{26})', html)
    assert sources == ["data:image/svg+xml;base64,"] * 2 and "A &amp; B" in html
    assert "![A & B](figure.png)" in files["page.md"].decode()


def test_columns_of_figures_are_aligned_to_the_right() -> None:
    rows = [["CCE", "45.1 ± 1.2", "79.7", ""], ["MAE", "1,000", "", ""]]
    html, markdown = page(Table(["loss", "test", "paper", "empty"], rows, "Caption"))
    assert "<th>loss</th><th class=n>test</th><th class=n>paper</th><th>empty</th>" in html
    assert "<td>CCE</td><td class=n>45.1 ± 1.2</td><td class=n>79.7</td>" in html
    assert "| --- | ---: | ---: | --- |" in markdown


def test_a_table_without_rows_is_a_header() -> None:
    html, markdown = page(Table(["a", "b"], [], "Caption"))
    assert "<th>a</th><th>b</th>" in html and markdown.endswith("| a | b |\n| --- | --- |\n\nCaption\n")


def test_a_wide_table_scrolls_by_itself_and_says_so() -> None:
    html, _ = page(Table(["a"], [["b"]], "Caption"))
    assert '<div class="wide" tabindex="0" role="region" aria-label="Caption">' in html
    assert "overflow-x: auto" in html and "Scroll for more columns" in html


@pytest.mark.parametrize("part", ["by `imae demo`", Items(["by `imae demo`"]), Heading("by `imae demo`")])
def test_words_between_backticks_are_code(part: Part) -> None:
    html, markdown = page(part)
    assert "by <code>imae demo</code>" in html and "by `imae demo`" in markdown


def test_a_command_wraps_between_words_and_can_be_copied_as_it_is() -> None:
    html, markdown = page(Code(["imae train --solver a&b"]))
    assert "white-space: pre-wrap" in html and '<button type="button">Copy</button>' in html
    (code,) = re.findall("<pre>(.*?)</pre>", html)
    assert re.sub("</?span>", "", code) == "imae train --solver a&amp;b"
    assert "<span>--solver</span>" in code
    assert "```\nimae train --solver a&b\n```" in markdown


def test_html_in_a_text_is_shown_as_it_is_written() -> None:
    html, _ = page("<b>", Items(["<i>"]), Table(["<u>"], [["<s>"]], "<q>"))
    for tag in "biusq":
        assert f"&lt;{tag}&gt;" in html
    assert not re.search("<[bisq]>", html)


def test_markdown_tables_keep_their_columns() -> None:
    _, markdown = page(Table(["a|b"], [["c"]], "Caption"))
    assert markdown == "# A title\n\n| a\\|b |\n| --- |\n| c |\n\nCaption\n"


def test_a_page_alone_has_no_index() -> None:
    assert set(page_files("one", "One", [], {"other.html": "<title>not ours</title>"})) == {"one.html", "one.md"}


def test_the_pages_of_a_folder_are_linked_and_listed_whichever_is_written_last() -> None:
    folder: dict[str, str] = {}
    for name, title in (("one", "Table 1: a"), ("two", "Figure 2: b & c"), ("one", "Table 1: a")):
        files = page_files(name, title, ["Text"], folder)
        folder |= {name: data.decode() for name, data in files.items()}
    assert set(folder) == {"one.html", "one.md", "two.html", "two.md", "index.html", "index.md"}
    for page, link in (("one", '<a href="two.html">Figure 2</a>'), ("two", '<a href="one.html">Table 1</a>')):
        assert folder[f"{page}.html"].count("<nav>") == folder[f"{page}.html"].count(link) == 1
        assert '<a href="index.html">All pages</a>' in folder[f"{page}.html"]
        assert "<p>Text</p>" in folder[f"{page}.html"]
    assert '<li><a href="two.html">Figure 2: b &amp; c</a></li>' in folder["index.html"]
    assert folder["index.md"] == "# All pages\n\n- [Table 1: a](one.md)\n- [Figure 2: b & c](two.md)\n"
    assert "[All pages](index.md)" in folder["one.md"] and "[All pages](index.md)" in folder["two.md"]


def test_pages_whose_titles_begin_alike_are_told_apart_in_links() -> None:
    first = page_files("a", "Tuning: noise 20", [], {})["a.html"].decode()
    files = page_files("b", "Tuning: noise 50", [], {"a.html": first})
    assert '<a href="a.html">Tuning: noise 20</a>' in files["b.html"].decode()


def test_reports_import_nothing_of_ours() -> None:
    for path in Path(page_files.__code__.co_filename).parent.glob("*.py"):
        assert not re.search(r"imae\.(?!reports)\w", path.read_text()), path
