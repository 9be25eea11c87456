"""Samples that are almost the same but are labelled differently, and classes that cannot be told apart."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from imae.audit.features import Features

MOST_COMPARED = 20_000
"""Samples that are compared with each other, drawn at random where there are more; for equality all are."""
NEAR = 0.05
"""Two samples are near duplicates whose distance is at most so large a part of the usual one to the nearest other."""
_ROWS = 1024
MERGED = 0.5
"""Two classes look merged where each is taken for the other so often."""
UNDECIDED = 0.7
"""Nobody can tell which of two labels of a class is wrong where the other is at least so many times as frequent."""


@dataclass(frozen=True)
class Duplicates:
    """Pairs of samples with different labels that are almost the same: M x 2, nearest first."""

    pairs: NDArray[np.int64]
    distance: NDArray[np.float64]
    """In units of the usual distance from a sample to its nearest other; 0: the same."""
    compared: int
    """Near ones were looked for among so many samples, equal ones among all."""


def conflicting_duplicates(features: Features, label: NDArray[np.int64]) -> Duplicates:
    """Return the near duplicates with conflicting labels: each sample with its nearest other, where that is near."""
    chosen = torch.arange(len(label))
    if len(label) > MOST_COMPARED:
        chosen = torch.randperm(len(label), generator=torch.Generator().manual_seed(0))[:MOST_COMPARED].sort().values
    rows = features.rows(chosen)
    squares = (rows**2).sum(1)
    given = torch.from_numpy(label)[chosen]
    nearest, other, conflict = (torch.empty(len(rows)) for _ in range(3))
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        distance = torch.addmm(squares, rows[part], rows.t(), alpha=-2).add_(squares[part, None])
        distance.diagonal(start).fill_(torch.inf)
        nearest[part] = distance.min(1).values
        distance.masked_fill_(given[part, None] == given, torch.inf)
        value, index = distance.min(1)
        conflict[part], other[part] = value, index.float()
    # Of a difference of squares no more than its rounding is known.
    usual = float(nearest.clamp_min(0).sqrt().median()) or 1.0
    exact = (rows - rows[other.long()]).norm(dim=1)
    near = torch.isfinite(conflict) & (exact <= NEAR * usual)
    pairs = dict.fromkeys(_equal(features, label), 0.0)
    for i in near.nonzero()[:, 0]:
        a, b = sorted((int(chosen[i]), int(chosen[other[i].long()])))
        pairs.setdefault((a, b), float(exact[i]) / usual)
    ordered = sorted(pairs, key=lambda pair: pairs[pair])
    return Duplicates(
        np.array(ordered, np.int64).reshape(-1, 2), np.array([pairs[pair] for pair in ordered]), len(rows)
    )


def _equal(features: Features, label: NDArray[np.int64]) -> list[tuple[int, int]]:
    """The pairs of equal samples with different labels: of each such sample with the first that it equals."""
    first: dict[bytes, int] = {}
    pairs = []
    for part in torch.split(torch.arange(len(label)), _ROWS):
        for i, row in zip(part.tolist(), features.rows(part).numpy(), strict=True):
            j = first.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), i)
            if label[i] != label[j]:
                pairs.append((j, i))
    return pairs


def merged_classes(transition: NDArray[np.float64]) -> list[tuple[int, int, float]]:
    """Return pairs of classes that look like one, each with how often they are taken for each other.

    Their samples have either label about as they please: the smaller of T[a, b] / T[a, a] and T[b, a] / T[b, b] is at
    least `MERGED`.
    """
    own = np.maximum(transition.diagonal(), 1e-9)
    share = transition / own[:, None]
    both = np.minimum(share, share.T)
    rows, columns = np.nonzero(np.triu(both, 1) >= MERGED)
    found = [(int(a), int(b), float(both[a, b])) for a, b in zip(rows, columns, strict=True)]
    return sorted(found, key=lambda pair: -pair[2])


def undecided_classes(transition: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return the classes whose samples have another label, the second, about as often as their own, or more often."""
    others = transition.copy()
    np.fill_diagonal(others, 0.0)
    rows = np.nonzero(others.max(1) >= UNDECIDED * transition.diagonal())[0]
    return [(int(row), int(others[row].argmax())) for row in rows]
