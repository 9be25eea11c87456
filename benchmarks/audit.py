"""Which labels are wrong: `imae.audit` beside cleanlab, on the same features, with the same head, in one run.

    python -m benchmarks.audit [--sets worse_label ...] [--rounds 5] [--data ../shared/data]

Both get features and noisy labels, no clean ones. cleanlab gets what its users give it: the probabilities that five
heads trained by cross entropy, each on four fifths of the samples, have for the fifth that is left; it scores by
self-confidence and flags by its own filter. The method's settings were chosen on the first 40,000 images of CIFAR-10
and other draws of noise; figures are of the last 10,000, once with all 50,000 audited, once with these alone. The sides
take turns, of which times are the median; what they find is the same in each.

Without CIFAR-10's features, or without cleanlab (pip install 'imae[benchmark]'), their rows are left out.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring import ROOT, Benchmark, Row, positive
from imae.layers.data.label_noise import corrupt

HUMAN = ("aggre_label", "random_label1", "random_label2", "random_label3", "worse_label")
KINDS = {"symmetric": "SYMMETRIC", "exclusive": "SYMMETRIC_EXCLUSIVE", "pair-flip": "PAIR_FLIP"}
RATES = (20, 50, 80)
SEED = 101
"""Of the noise that is drawn."""
REPORTED = slice(40_000, 50_000)
FOLDS = 5
Numbers = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """Features and noisy labels, which of these are wrong, and the samples that figures are of."""

    name: str
    features: Numbers
    labels: Numbers
    wrong: NDArray[np.bool_]
    reported: slice


@dataclass(frozen=True)
class Found:
    """What a side says of every sample."""

    score: Numbers
    flagged: NDArray[np.bool_]
    p_wrong: Numbers | None
    seconds: float
    processor: float
    """Seconds of processor time: on a busy machine less than those on the clock."""


def cases(data: Path) -> Iterator[Case]:
    """The data sets, in the order of the table."""
    from sklearn.datasets import load_breast_cancer, load_digits

    if (data / "cifar10_features.npz").exists() and (data / "cifar10n.npz").exists():
        with np.load(data / "cifar10_features.npz") as file:
            features = file["train"]
        with np.load(data / "cifar10n.npz") as file:
            human = {name: file[name].astype(np.int64) for name in ("clean_label", *HUMAN)}
        clean = human.pop("clean_label")
        labels = human | dict(_drawn(clean, RATES))
        for about, audited in (("", slice(None)), (", 10,000 alone", REPORTED)):
            reported = slice(None) if about else REPORTED
            for name, noisy in labels.items():
                wrong = noisy[audited] != clean[audited]
                yield Case(name + about, features[audited], noisy[audited], wrong, reported)
    for name, load, rates in (("digits", load_digits, RATES), ("breast cancer", load_breast_cancer, RATES[:1])):
        table, clean = load(return_X_y=True)
        for kind, noisy in _drawn(clean, rates):
            yield Case(f"{name}, {kind}", table, noisy, noisy != clean, slice(None))


def _drawn(clean: Numbers, rates: tuple[int, ...]) -> Iterator[tuple[str, Numbers]]:
    classes = int(clean.max()) + 1
    for number, (kind, name) in enumerate(KINDS.items()):
        for rate in rates:
            if classes > 2 or kind == "symmetric":  # of two classes, the others are the same
                yield f"{kind} {rate} %", corrupt(clean, classes, name, rate / 100, SEED + 10 * number + rate)


def ours(case: Case) -> Found:
    """The audit, by its defaults."""
    from imae.audit.label_issues import find_label_issues

    start, used = time.perf_counter(), time.process_time()
    found = find_label_issues(case.features, case.labels)
    return Found(found.score, found.is_issue, found.p_wrong, time.perf_counter() - start, time.process_time() - used)


def cleanlabs(case: Case) -> Found:
    """cleanlab's, on out-of-sample probabilities of the same head trained by cross entropy."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    from imae.audit.classifier import IMAEClassifier

    start, used = time.perf_counter(), time.process_time()
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    table = case.features.astype(np.float32)
    head = IMAEClassifier(loss="CCE")
    p = cross_val_predict(head, table, case.labels, cv=folds, method="predict_proba")
    score = 1 - get_label_quality_scores(case.labels, p)
    flagged = find_label_issues(case.labels, p, n_jobs=1)
    return Found(score, flagged, None, time.perf_counter() - start, time.process_time() - used)


def row(case: Case, side: str, turns: Sequence[Found]) -> Row:
    """The figures of a side."""
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

    found = turns[0]
    wrong, score = case.wrong[case.reported], found.score[case.reported]
    flagged, order = found.flagged[case.reported], np.argsort(-score, kind="stable")
    k = int(wrong.sum())
    figures: Row = {
        "labels": case.name,
        "side": side,
        "wrong": 100 * float(wrong.mean()),
        "estimated": 100 * float(flagged.mean()),
        "auroc": 100 * float(roc_auc_score(wrong, score)),
        "ap": 100 * float(average_precision_score(wrong, score)),
        "precision": 100 * float(wrong[order[:k]].mean()),
        "f1": 100 * float(f1_score(wrong, flagged, zero_division=0)),
        "seconds": statistics.median(turn.seconds for turn in turns),
        "processor": statistics.median(turn.processor for turn in turns),
    }
    if found.p_wrong is not None:
        p_wrong = found.p_wrong[case.reported]
        figures["estimated"] = 100 * float(p_wrong.mean())
        for name, n in (("top1", len(wrong) // 100), ("top5", len(wrong) // 20), ("topk", k)):
            figures[name] = float(p_wrong[order[:n]].sum() / max(1, wrong[order[:n]].sum()))
    return figures


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which label sets, and where the data are."""
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="Rows whose name begins so.")
    parser.add_argument("--rounds", type=positive, default=5, help="Turns of each side.")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="CIFAR-10's features and labels.")


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """Two rows for each data set."""
    from importlib.util import find_spec

    sides: dict[str, Callable[[Case], Found]] = {"imae": ours}
    notes = []
    if find_spec("cleanlab"):
        sides["cleanlab"] = cleanlabs
    else:
        notes.append("cleanlab is not installed.")
    if not (options.data / "cifar10_features.npz").exists():
        notes.append("CIFAR-10's features are not at hand.")
    rows: list[Row] = []
    for case in cases(options.data):
        if options.sets and not case.name.startswith(tuple(options.sets)):
            continue
        turns: dict[str, list[Found]] = {side: [] for side in sides}
        for _ in range(options.rounds):
            for side, find in sides.items():
                turns[side].append(find(case))
        for side, found in turns.items():
            rows.append(row(case, side, found))
            print(f"{case.name}, {side}: {rows[-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
    notes.append(
        "Where half the labels or more are the next class, these are the larger part: no method can know better."
    )
    return rows, [*notes, *_summary(rows)]


def _summary(rows: list[Row]) -> list[str]:
    """In how many of the data sets ours is the better side, and its expected counts hold."""
    pairs = [(a, b) for a, b in itertools.pairwise(rows) if a["side"] == "imae" and b["side"] == "cleanlab"]
    said = []
    for key, name in (("auroc", "AUROC"), ("ap", "average precision"), ("precision", "precision at k"), ("f1", "F1")):
        worse = [str(a["labels"]) for a, b in pairs if float(a[key] or 0) < float(b[key] or 0)]
        said.append(f"{name}: better in {len(pairs) - len(worse)} of {len(pairs)}{_but(worse)}.")
    slower = [str(a["labels"]) for a, b in pairs if float(a["processor"] or 0) > float(b["processor"] or 0)]
    said.append(f"Processor time: less in {len(pairs) - len(slower)} of {len(pairs)}{_but(slower)}.")
    mine = [a for a in rows if a["side"] == "imae"]
    off = [str(a["labels"]) for a in mine if any(abs(float(a[n] or 0) - 1) > 0.1 for n in ("top1", "top5", "topk"))]
    said.append(f"Expected among the top 1 %, 5 %, k within 10 %: {len(mine) - len(off)} of {len(mine)}{_but(off)}.")
    return said


def _but(names: list[str]) -> str:
    return f", not in {'; '.join(names)}" if names else ""


BENCHMARK = Benchmark(
    "audit",
    "Which labels are wrong",
    {
        "labels": "labels",
        "side": "side",
        "wrong": "wrong %",
        "estimated": "estimated %",
        "auroc": "AUROC",
        "ap": "average precision",
        "precision": "precision at k",
        "f1": "F1",
        "top1": "expected / true, top 1 %",
        "top5": "top 5 %",
        "topk": "top k",
        "seconds": "s",
        "processor": "processor s",
    },
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
