"""`imae review`: a page of this machine's own where a person keeps, relabels or drops suspects.

Paths below `/TOKEN/`: the page itself; `item/P`, the P-th suspect as JSON; `image/P`, its picture; and, by POST of
JSON, `decide` (`{"position": P, "action": ..., "label": C}`) and `undo`. There is nothing else.
"""

import json
import secrets
import threading
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from imae.audit.cleaned import Decision, Thresholds, write_cleaned
from imae.audit.decisions import GONE, Decisions
from imae.audit.result import SUMMARY, read_result
from imae.audit.thumbnails import Thumbnails
from imae.prototxt_like.csv_file import DROP, KEEP, RELABEL
from imae.prototxt_like.errors import InputError
from imae.reports.pages import Html, page_html

CHOICES = 9
"""Classes that a digit relabels to."""
SIDE = 720
"""Pixels of the longer side of a picture."""
LONGEST = 4096
"""Bytes of a request."""
PATIENCE = 10.0
"""Seconds that a request may take to arrive."""
PAUSE = 0.5
"""Seconds between two writings of `cleaned.csv`."""
POLICY = (
    "default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Review:
    """The review of an audit's folder; safe to be used by several threads. A context manager.

    A decision is on the disk when `decide` returns. `cleaned.csv` and `cleaned.txt` are written by a thread of their
    own, soon after, and at the end.
    """

    def __init__(self, folder: Path, top: int | None = None) -> None:
        """Review the suspects, or the `top` most suspicious; raises InputError for a folder without an audit."""
        self.result, summary = read_result(folder)
        self.queue: list[int] = (self.result.suspects if top is None else self.result.order[:top]).tolist()
        if not self.queue:
            raise InputError(f"{folder}: the audit found no label to look at; --top N reviews the N most suspicious")
        self.decisions = Decisions(self.result)
        self.thumbnails = Thumbnails(self.result)
        try:
            above = summary["thresholds"]
            self._thresholds = Thresholds(**{name: p if p is None else float(p) for name, p in above.items()})
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"{folder / SUMMARY}: has no thresholds: {error!r}") from error
        self._places = {index: place for place, index in enumerate(self.queue)}
        self._lock = threading.Lock()
        self._changed, self._ended = threading.Event(), threading.Event()
        self._failed: InputError | None = None
        self._writer = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Review":
        self.decisions.open()
        self._changed.set()  # a process that was killed may have left it behind
        self._writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._changed.set()
        self._writer.join()
        self.decisions.close()
        if self._failed:
            raise self._failed

    def _follow(self) -> None:
        ended = False
        while not ended:
            self._changed.wait()
            self._changed.clear()
            ended = self._ended.is_set()
            with self._lock:
                decided = dict(self.decisions.by_index)
            try:
                write_cleaned(self.result, self._thresholds, decided)
                self._failed = None
            except InputError as error:  # a full disk, at times
                self._failed = error
            self._ended.wait(PAUSE)

    def counts(self) -> dict[str, int]:
        """Return how many samples are kept, relabelled, dropped, and how many suspects are left."""
        decided = self.decisions.by_index
        counts = Counter(decision.action for index, decision in decided.items() if index != GONE)
        left = sum(index not in decided for index in self.queue)
        return {**{action: counts[action] for action in (KEEP, RELABEL, DROP)}, "left": left}

    def next(self, after: int = -1) -> int:
        """Return the place of the next suspect that is not decided, from the front after the last; else that after."""
        total = len(self.queue)
        for step in range(1, total + 1):
            if self.queue[(after + step) % total] not in self.decisions.by_index:
                return (after + step) % total
        return min(after + 1, total - 1)

    def item(self, place: int) -> dict[str, Any]:
        """Return what the page shows of a suspect."""
        index, scores = self.queue[place], self.result.scores
        label, suggested = int(scores["label"][index]), int(scores["suggested"][index])
        likely = [
            c for c in np.argsort(-scores["logits"][index], kind="stable").tolist() if c not in (label, suggested)
        ]
        with self._lock:
            decision = self.decisions.by_index.get(index)
            return {
                "position": place,
                "total": len(self.queue),
                "name": self.result.names[index],
                "label": label,
                "choices": [suggested, *likely][:CHOICES],
                "p_wrong": float(scores["p_wrong"][index]),
                "p_suggested": float(scores["p_suggested"][index]),
                "image": bool(self.thumbnails),
                "decision": decision and {"action": decision.action, "label": decision.label},
                "counts": self.counts(),
            }

    def decide(self, place: int, action: str, label: int) -> int:
        """Decide about a suspect; return the place of the next. Raises ValueError for what is no decision."""
        if action not in (KEEP, DROP, RELABEL) or not 0 <= place < len(self.queue):
            raise ValueError(action)
        if action == RELABEL and not 0 <= label < len(self.result.classes):
            raise ValueError(label)
        with self._lock:
            self.decisions.add(self.queue[place], Decision(action, label if action == RELABEL else -1))
            self._changed.set()
            return self.next(place)

    def undo(self) -> int | None:
        """Take back the last decision that stands; return the suspect's place, None where there is none."""
        with self._lock:
            index = self.decisions.undo()
            self._changed.set()
        return None if index is None else self._places.get(index, 0)

    def page(self) -> bytes:
        """Return the page."""
        style, script = ((files(__package__) / f"review.{suffix}").read_text() for suffix in ("css", "js"))
        start = {"classes": self.result.classes, "position": self.next()}
        data = json.dumps(start).replace("<", "\\u003c")
        body = f'{_BODY}<script type="application/json" id="start">{data}</script>'
        title = f"Review of {self.result.source}"
        return page_html(title, [Html(body)], style=style, script=script).encode(errors="replace")


_BODY = """<p id="count" role="status"></p>
<div id="bar" aria-hidden="true"><div></div></div>
<main>
<div id="picture"><img id="image" alt=""></div>
<div id="facts">
<p id="name"></p>
<p><span id="label"></span> → <b id="suggested"></b></p>
<p id="scores"></p>
<p id="decided" role="status"></p>
<div id="actions">
<button type="button" data-key="k">Keep <kbd>K</kbd></button>
<button type="button" data-key="r">Relabel <kbd>R</kbd></button>
<button type="button" data-key="d">Drop <kbd>D</kbd></button>
<button type="button" data-key="u">Undo <kbd>U</kbd></button>
<button type="button" data-key="ArrowLeft" aria-label="Previous">←</button>
<button type="button" data-key="ArrowRight" aria-label="Next">→</button>
</div>
<ol id="choices"></ol>
<label>Any class <select id="any"><option value="">...</option></select></label>
</div>
</main>
<p id="error" role="alert"></p>
"""


class Server(ThreadingHTTPServer):
    """Serves a review on 127.0.0.1, below an address that nobody can guess."""

    daemon_threads = True

    def __init__(self, review: Review, port: int = 0) -> None:
        """Bind to `port`, or one that is free; raises InputError if it is taken."""
        self.review, self.token = review, secrets.token_urlsafe(24)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise InputError(f"port {port}: cannot be used: {error.strerror or error}") from error
        self.origins = {f"http://{host}:{self.server_port}" for host in ("127.0.0.1", "localhost")}

    @property
    def address(self) -> str:
        """The address to open."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that goes away is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = PATIENCE
    server_version, sys_version = "imae", ""

    def do_GET(self) -> None:
        words = self._allowed()
        if words is None:
            return
        review = self.server.review
        match words:
            case [""]:
                self._send(200, "text/html; charset=utf-8", review.page())
            case ["item", _] if (place := self._place(words)) is not None:
                self._json(review.item(place))
            case ["image", _] if (place := self._place(words)) is not None and review.thumbnails:
                picture = review.thumbnails.of(review.queue[place], SIDE)
                self._send(200, *picture) if picture else self._refuse(404)
            case _:
                self._refuse(404)

    def do_POST(self) -> None:
        words = self._allowed()
        if words is None:
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isdecimal() and int(length) <= LONGEST):
            self._refuse(413)
            return
        if self.headers.get_content_type() != "application/json":  # which pages of others cannot send unasked
            self._refuse(415)
            return
        try:
            asked = json.loads(self.rfile.read(int(length)))
            match words:
                case ["decide"]:
                    place, action, label = asked["position"], asked["action"], asked.get("label", -1)
                    if not (type(place) is type(label) is int):
                        raise TypeError
                    self._json({"position": self.server.review.decide(place, action, label)})
                case ["undo"]:
                    self._json({"position": self.server.review.undo()})
                case _:
                    self._refuse(404)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._refuse(400)
        except InputError as error:  # a full disk
            self._send(500, "text/plain; charset=utf-8", str(error).encode(errors="replace"))

    def _allowed(self) -> list[str] | None:
        """The words after the token; None, after a refusal, for a request that has none, or from elsewhere."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        elsewhere = self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        first, token, *words = self.path.split("/") if self.path.count("/") > 1 else ("", "", "")
        known = secrets.compare_digest(token.encode(errors="replace"), self.server.token.encode())
        if f"http://{host}" not in self.server.origins or (origin and origin not in self.server.origins) or elsewhere:
            self._refuse(403)
            return None
        if first or not known:
            self._refuse(404)
            return None
        return words

    def _place(self, words: Sequence[str]) -> int | None:
        number = words[1]
        good = number.isascii() and number.isdecimal() and len(number) < 10
        return int(number) if good and int(number) < len(self.server.review.queue) else None

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request of ours, a method or a line, without the page that says so."""
        self._refuse(code)

    def _refuse(self, status: int) -> None:
        self._send(status, "text/plain; charset=utf-8", b"")

    def _json(self, value: dict[str, Any]) -> None:
        self._send(200, "application/json", json.dumps(value).encode())

    def _send(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response(status)
        headers = {"Content-Type": media_type, "Content-Length": str(len(body)), "Content-Security-Policy": POLICY}
        headers |= {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        for name, value in {**headers, "Cross-Origin-Resource-Policy": "same-origin"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Write no log: addresses hold the token."""
