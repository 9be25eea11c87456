"""The documents speak of files that exist, and the design's picture shows the packages of the import table."""

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs import house

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "design.md").read_text()
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))
SVG = "{http://www.w3.org/2000/svg}"


def named(text: str) -> list[str]:
    """The paths of files and folders between backticks, in commands too."""
    words = [word for code in re.findall(r"`([^`]+)`", text) for word in code.split()]
    return [word for word in words if "/" in word or word.endswith((".py", ".md"))]


def test_every_path_named_exists() -> None:
    assert len(named(TEXT)) > 30
    assert [path for path in named(TEXT) if not (ROOT / path).exists()] == []
    links = re.findall(r"\]\(([^):#]+)\)", TEXT)
    assert links and all((ROOT / "docs" / link).exists() for link in links)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_ours_that_a_document_names_exists(document: Path) -> None:
    ours = [path for path in named(document.read_text()) if path.endswith(".py") and "my_layer" not in path]
    assert [path for path in ours if not (ROOT / path).exists()] == []


def test_the_way_of_a_batch_names_each_file_once() -> None:
    way = named(TEXT.partition("## The way of one batch")[2])
    assert {"prototxt_like/text.py", "nets/net.py", "solvers/update.py"} <= set(way)
    assert [path for path, times in Counter(way).items() if times > 1] == []


def test_every_package_is_told_of() -> None:
    assert all(f"{package}/" in TEXT for package in house.table())


def test_the_picture_shows_the_packages_and_imports_of_the_table() -> None:
    picture = ElementTree.parse(ROOT / "docs" / "house.svg")
    names = [text.text for text in picture.iter(f"{SVG}text") if text.get("class") == "name"]
    assert sorted(map(str, names)) == sorted(house.table())
    below: dict[str, set[str]] = {package: set() for package in house.table()}
    arrows = [(str(line.get("data-from")), str(line.get("data-to"))) for line in picture.iter(f"{SVG}polyline")]
    for _ in below:
        for package, other in arrows:
            below[package] |= {other} | below[other]
    assert below == house.table()


def test_the_picture_is_what_its_script_draws() -> None:
    assert (ROOT / "docs" / "house.svg").read_text() == house.draw(house.table())


def test_the_boxes_of_the_picture_lie_apart_and_each_below_what_may_import_it() -> None:
    places = house.corners(house.table())
    assert len(set(places.values())) == len(places)
    assert all(places[package][1] < places[below][1] for package in places for below in house.table()[package])
