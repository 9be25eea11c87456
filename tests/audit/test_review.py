"""`imae review`: who gets an answer, and that no decision is lost. test_in_a_browser.py presses the keys."""

import contextlib
import csv
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from audit_folders import CLASSES, audited

from imae.audit.cleaned import Decision
from imae.audit.decisions import FILE, Decisions
from imae.audit.result import SUMMARY, read_result
from imae.audit.review import Review, Server
from imae.cli import main
from imae.prototxt_like.errors import InputError


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Server]:
    with Review(folder, top=2000) as review, Server(review) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder, _ = audited(tmp_path)
    with served(folder) as server:
        yield server


def ask(address: str, body: object = None, **headers: str) -> tuple[int, bytes]:
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = {"Content-Type": "application/json"} if data is not None else {}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urlopen(Request(address, data, {**kind, **named}), timeout=20) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


def cleaned(folder: Path) -> list[dict[str, str]]:
    with (folder / "cleaned.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_nobody_else_gets_an_answer(server: Server) -> None:
    root, address = f"http://127.0.0.1:{server.server_port}", server.address
    decision = {"position": 0, "action": "drop"}
    assert ask(address)[0] == ask(f"{address}item/0")[0] == ask(f"{address}image/0")[0] == 200
    for path in (
        "",
        "/",
        "/decide",
        "/item/0",
        "/favicon.ico",
        f"/{server.token}",
        f"/{server.token[:-1]}/",
        "/x/item/0",
    ):
        assert ask(root + path) == (404, b"")
    names = (
        "../summary.json",
        "%2e%2e/names.txt",
        "summary.json",
        "/etc/passwd",
        "image/../../names.txt",
        "item/",
        "?x",
    )
    for name in (*names, "item/99", "item/-1", "item/0/1", "item/\u00b2".encode().decode("latin-1"), "image/1"):
        path = f"/{server.token}/{name}"
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        connection.putrequest("GET", path.encode("latin-1").decode("ascii", "replace").replace("\ufffd", "%b2"))
        connection.endheaders()
        assert connection.getresponse().status == 404, name
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{server.server_port + 1}"},
        {"Host": "evil.example"},
        {"Host": f"evil.example:{server.server_port}"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        assert ask(f"{address}item/0", **headers) == ask(f"{address}decide", decision, **headers) == (403, b"")
    for method in ("HEAD", "PUT", "OPTIONS", "ODD"):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        connection.request(method, f"/{server.token}/item/0")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (501, b"")
    assert ask(f"{address}decide", decision, Content_Type="text/plain")[0] == 415
    assert ask(f"{address}decide", b"x" * 5000)[0] == 413
    wrong: list[object] = [
        b"{",
        [],
        {},
        {"position": 0},
        {"position": 99, "action": "keep"},
        {"position": 0, "action": "x"},
    ]
    wrong += [{"position": place, "action": "keep"} for place in ("0", True, 0.0)]
    for body in (*wrong, {"position": 0, "action": "relabel", "label": 3}):
        assert ask(f"{address}decide", body)[0] == 400
    assert not server.review.decisions.by_index
    assert ask(f"{address}decide", decision, Origin=root)[0] == 200 and len(server.review.decisions.by_index) == 1


def test_the_page_takes_nothing_for_html(server: Server) -> None:
    page = ask(server.address)[1].decode()
    assert "<b>dog" not in page and "Review of photos &amp; &lt;more&gt;" in page
    assert ask(f"{server.address}image/0")[1][:2] == b"\xff\xd8"
    item = json.loads(ask(f"{server.address}item/0")[1])
    assert (item["name"], item["choices"], item["total"]) == ("0000 'n' & <b>.png", [1, 2], 40)


def test_decisions_undo_and_going_on(tmp_path: Path) -> None:
    folder, _ = audited(tmp_path)
    with Review(folder) as review:
        assert review.next() == 0
        assert [review.decide(0, "drop", -1), review.decide(1, "relabel", 0), review.decide(2, "keep", -1)] == [1, 2, 3]
        assert review.decide(0, "relabel", 2) == 3
        with pytest.raises(InputError, match="is being reviewed by another process"), Review(folder):
            pass
        assert [review.undo(), review.undo(), review.undo()] == [0, 2, 1]
        assert review.counts() == {"keep": 0, "relabel": 0, "drop": 1, "left": 19}
        review.decide(3, "relabel", 2)
    rows = cleaned(folder)
    assert [row["action"] for row in rows[:5]] == ["drop", "keep", "keep", "relabel", "keep"]
    assert (rows[3]["label"], rows[3]["reason"], rows[0]["reason"]) == ("</script><b>dog", "reviewed", "reviewed")
    listed = (folder / "cleaned.txt").read_text().splitlines()
    assert len(listed) == 39 and listed[2] == "0003 'n' & <b>.png 2"
    with Review(folder) as review:
        assert review.counts() == {"keep": 0, "relabel": 1, "drop": 1, "left": 18} and review.next() == 1
        assert [review.undo(), review.undo(), review.undo()] == [3, 0, None]
    assert not Decisions(read_result(folder)[0]).by_index
    with Review(folder, top=3) as review:
        assert [review.decide(i, "keep", -1) for i in range(3)] == [1, 2, 2] and review.counts()["left"] == 0


def test_decisions_of_an_audit_that_went_on(tmp_path: Path) -> None:
    folder, _ = audited(tmp_path)
    lines = [
        {"name": "0005 'n' & <b>.png", "index": 2, "action": "drop"},
        {"name": "gone.png", "index": 3, "action": "drop"},
        {"name": "0004 'n' & <b>.png", "index": 4, "action": "relabel", "label": "no class"},
    ]
    (folder / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"name": "torn')
    with Review(folder) as review:
        assert {i: d for i, d in review.decisions.by_index.items() if i >= 0} == {5: Decision("drop", -1)}
        assert review.counts()["drop"] == 1
        review.decide(0, "keep", -1)
    assert [json.loads(line)["index"] for line in (folder / FILE).read_text().splitlines()] == [2, 3, 4, 0]
    for line in ('{"undo": true}\n', "[1]\n", "x\n", '{"index": 0, "action": "eat", "name": "0"}\n'):
        (folder / FILE).write_text(line)
        with pytest.raises(InputError, match=rf"{FILE}: line 1: is no decision"):
            Review(folder)


@pytest.mark.parametrize("count", [60, pytest.param(990, marks=pytest.mark.slow)])
def test_many_decisions_and_a_kill_in_between(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = audited(tmp_path, count, images=False)
    actions = [("keep", "drop", "relabel")[i % 3] for i in range(count)]
    third, killed_at = count // 3, count // 5 * 3

    def decide(address: str, places: range) -> None:
        for place in places:
            answer = ask(f"{address}decide", {"position": place, "action": actions[place], "label": place % 2})
            assert answer == (200, json.dumps({"position": min(place + 1, count - 1)}).encode())

    command = [sys.executable, "-m", "imae", "review", str(folder), "--no-browser", "--top", "2000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        decide(process.stdout.readline().split()[0], range(killed_at))
        process.kill()
    with served(folder) as server:
        counts = json.loads(ask(f"{server.address}item/0")[1])["counts"]
        assert counts == {**dict.fromkeys(("keep", "relabel", "drop"), killed_at // 3), "left": count - killed_at}
        decide(server.address, range(killed_at, count))
        deadline = time.monotonic() + 20
        while sum(row["reason"] == "reviewed" for row in cleaned(folder)) < count and time.monotonic() < deadline:
            time.sleep(0.05)  # cleaned.csv follows while the page is open
        rows = cleaned(folder)
    assert [row["action"] for row in rows] == actions
    assert all(row["label"] == CLASSES[i % 2] for i, row in enumerate(rows) if row["action"] == "relabel")

    def interrupted(_: Server) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["review", str(folder), "--no-browser"])
    assert ended.value.code == 0 and f"keep {third}, relabel {third}, drop {third}, left 0" in capsys.readouterr().out


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = audited(tmp_path)
    damaged, _ = audited(tmp_path / "damaged", images=False)
    summary = json.loads((damaged / SUMMARY).read_text())
    (damaged / SUMMARY).write_text(json.dumps({name: summary[name] for name in ("root", "source", "classes")}))
    unsuspected, _ = audited(tmp_path / "unsuspected", images=False, suspects=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for arguments, message in (
            ([unsuspected], "found no label to look at; --top N reviews the N most suspicious"),
            ([tmp_path / "none"], "none: has no audit, summary.json is missing"),
            ([damaged], "has no thresholds: KeyError"),
            ([folder, "--port", taken.getsockname()[1]], "cannot be used: Address already in use"),
        ):
            with pytest.raises(SystemExit) as ended:
                main(["review", *map(str, arguments)])
            err = capsys.readouterr().err
            assert ended.value.code == 1 and message in err and err.count("\n") == 1
