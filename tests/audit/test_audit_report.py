"""`report.html`: by itself, bounded, and nothing that others wrote is taken for HTML. test_in_a_browser.py opens it."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from audit_folders import CLASSES, audited
from PIL import Image

from imae.audit import report
from imae.audit.report import write_report
from imae.audit.result import SUMMARY, read_result
from imae.audit.run import AuditOptions, _command
from imae.prototxt_like.errors import InputError


class Tags(HTMLParser):
    """The tags of a page, and what they refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "srcset", "href", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")]


def suspects(page: str) -> list[dict[str, object]]:
    (data,) = re.findall(r'<script type="application/json" id="suspects">(.*?)</script>', page)
    assert json.loads(data)["classes"] == CLASSES
    return list(json.loads(data)["items"])


def test_a_page_by_itself_with_nothing_taken_for_html(tmp_path: Path) -> None:
    folder, samples = audited(tmp_path)
    page = write_report(folder, "imae audit photos --resume", samples).read_text()
    tags = Tags(page)
    assert not {"b", "i"} & tags.found and all(link.startswith("data:") for link in tags.links)
    assert "http" not in re.sub(r"data:[^\"]*|http-equiv", "", page), "no network"
    items = suspects(page)
    assert [item["rank"] for item in items] == list(range(1, 21)) and items[2]["name"] == "0002 'n' & <b>.png"
    assert "image" not in items[1], "it cannot be read"
    kind, _, data = str(items[0]["image"]).partition(",")
    assert kind == "data:image/jpeg;base64" and Image.open(io.BytesIO(base64.b64decode(data))).size == (120, 90)
    for said in ("of 40 labels of 3 classes", "20 are suspects", "=1+1&lt;i&gt;.png", "T = 8"):
        assert said in page
    assert "cleaned.txt training --root" in re.sub("<.*?>", "", page)
    for command in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL):
        assert command.startswith("<span>imae</span> <span>")


def test_rows_without_pictures_and_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_ROWS", 100)
    folder, samples = audited(tmp_path / "rows", 2400, images=False)
    page = write_report(folder, "imae audit x.npy", samples).read_text()
    assert len(suspects(page)) == 100 and "1,100 more suspects" in page and "cleaned.txt" not in page
    assert "image" not in page.partition('id="suspects">')[2].partition("</script>")[0]
    assert len(page) < 2**20
    monkeypatch.setattr(report, "MOST_PICTURES", 10)
    folder, samples = audited(tmp_path / "images")
    pictured = [item["rank"] for item in suspects(write_report(folder, "", samples).read_text()) if "image" in item]
    assert pictured == [1, 3, 4, 5, 6, 7, 8, 9, 10]
    monkeypatch.setattr(report, "MOST_PICTURES", 4)
    monkeypatch.setattr(report, "FIRST_OF_PAIR", 1)
    assert len(report._pictured([{"label": i // 8, "suggested": 2} for i in range(16)])) == 4
    assert report._pictured([{"label": i // 8, "suggested": 2} for i in range(16)])[:2] == [0, 8], "each pair has one"


def test_of_many_classes_there_is_no_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imae.audit.result_folder.MANY", 2)
    folder, _ = audited(tmp_path, images=False)
    assert json.loads((folder / SUMMARY).read_text())["transition"] is None
    page = write_report(folder, "imae audit x").read_text()
    assert "wide matrix" not in page and "of the true class" not in page and "samples with the label" in page


def test_without_a_suspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, samples = audited(tmp_path, suspects=False)
    page = write_report(folder, "imae audit x", samples).read_text()
    assert "None is so suspicious that it should be looked at." in page and "wide matrix" in page
    assert "--top 20" in re.sub("<.*?>", "", page)
    assert "<h2>Suspects" not in page and 'getElementById("suspects")' not in page and "0 suspects" not in page
    assert len((folder / "suspects.csv").read_text().splitlines()) == 1
    monkeypatch.setattr("imae.audit.result_folder.MANY", 2)
    folder, samples = audited(tmp_path / "many", suspects=False, images=False)
    assert "taken for which" not in write_report(folder, "imae audit x", samples).read_text()


def test_the_command_that_goes_on() -> None:
    options = AuditOptions("my photos", Path("out"), label="class", allow_outside=True, parameter=8.0, seed=0)
    assert _command(options) == (
        "imae audit 'my photos' --resume --output out --label class --allow-outside --parameter 8.0"
    )


@pytest.mark.parametrize("damage", ["names", "scores", "summary", "none"])
def test_folders_that_hold_no_audit(damage: str, tmp_path: Path) -> None:
    folder, _ = audited(tmp_path, images=False)
    match damage:
        case "names":
            (folder / "names.txt").write_text("one\n")
        case "scores":
            (folder / "scores.npz").write_bytes((folder / "scores.npz").read_bytes()[:300])
        case "summary":
            (folder / SUMMARY).write_text("[1]")
        case "none":
            (folder / SUMMARY).unlink()
    with pytest.raises(InputError, match=r"has no audit|does not hold the files of one audit"):
        read_result(folder)
