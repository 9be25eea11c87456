"""Evaluates retrieval by the published MARS protocol: mean average precision and cumulated matching characteristics."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imae.prototxt_like.errors import InputError

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int64]

RANKS = (1, 5, 10, 20)  # those of which the paper and MARS give the CMC
JUNK = -1
DISTRACTOR = 0


@dataclass(frozen=True)
class RetrievalResult:
    """What `evaluate` and `evaluate_distance` return; all values are fractions.

    `map_trapezoid` is the mean average precision that the MARS code prints and papers report, `map_standard` the
    usual non-interpolated one. `cmc` (gallery rows,): at k-1 the fraction of queries with a match among the first k.
    `queries_without_match`: positions in `query_index` of queries that nothing in the gallery could match.
    """

    map_trapezoid: float
    map_standard: float
    cmc: NDArray[np.float64]
    queries_without_match: IntArray


def average_features(frames: ArrayLike, first: ArrayLike, last: ArrayLike) -> FloatArray:
    """Return tracklet features (tracks, D): the mean over each tracklet's rows of `frames` (F, D).

    `first` and `last` (tracks,) are 1-based and inclusive, as in the MARS tables. Sums are taken in float64.
    Raises InputError for shapes that do not fit, values that are not finite and ranges outside the frames.
    """
    # Checked for finite values after the means: the frames of MARS are gigabytes, perhaps a memory map, and read once.
    rows = _table(frames, "frame features")
    starts, ends = _integers(first, "first frames"), _integers(last, "last frames", length=np.size(first))
    outside = np.flatnonzero((starts < 1) | (ends < starts) | (ends > len(rows)))
    if outside.size:
        at = outside[0]
        raise InputError(
            f"tracklet {at}: frames {starts[at]} to {ends[at]}, expected a range from 1 to {len(rows)}, both inclusive"
        )
    means = np.empty((len(starts), rows.shape[1]), _precision(rows))
    for track, (start, end) in enumerate(zip(starts, ends, strict=True)):
        means[track] = rows[start - 1 : end].mean(axis=0, dtype=np.float64)
    return _features(means, "tracklet features")


def normalise(features: ArrayLike) -> FloatArray:
    """Return `features` (N, D) with every row scaled to L2 norm 1; a zero row stays zero.

    Raises InputError for another shape and for values that are not finite.
    """
    rows = _features(features, "features")
    # By the largest magnitude first, so that squares neither overflow nor vanish.
    rows = _divide_rows(rows, np.abs(rows).max(axis=1, initial=0))
    return _divide_rows(rows, np.sqrt(np.einsum("nd,nd->n", rows, rows)))


def cosine_distance(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Return 1 - cosine similarity (A, B) of the rows of `a` (A, D) and `b` (B, D); a zero row is at distance 1.

    Raises InputError for shapes that do not fit and for values that are not finite.
    """
    left, right = normalise(a), normalise(b)
    if left.shape[1] != right.shape[1]:
        raise InputError(f"cosine distance: features of {left.shape[1]} and of {right.shape[1]} dimensions")
    return 1 - left @ right.T


def evaluate(
    features: ArrayLike, labels: ArrayLike, cameras: ArrayLike, query_index: ArrayLike, *, chunk: int = 128
) -> RetrievalResult:
    """Rank the gallery by cosine distance of `features` (gallery, D) and score it as `evaluate_distance` does.

    `chunk` queries are ranked at a time, which bounds the memory. Raises InputError as `evaluate_distance`.
    """
    rows = normalise(features)
    protocol = _Protocol(len(rows), labels, cameras, query_index)
    gallery, queries = rows[protocol.kept], rows[protocol.query_index]
    return protocol.score(lambda part: 1 - queries[part] @ gallery.T, chunk)


def evaluate_distance(
    distance: ArrayLike, labels: ArrayLike, cameras: ArrayLike, query_index: ArrayLike, *, chunk: int = 128
) -> RetrievalResult:
    """Score the ranking that `distance` (gallery, queries) gives, nearest first, by the MARS protocol.

    `labels` (gallery,): -1 junk, 0 distractor, else the person; `cameras` (gallery,); `query_index` (queries,): the
    gallery rows, from 0, that are the queries. Left out of a ranking are junk and what shows the same person in the
    same camera as the query, so the query itself; distractors are misses. Equal distances keep the gallery's order.

    With r_i the rank of the i-th of n matches, the published average precision is the trapezoid
    1/n sum_i (P(r_i - 1) + P(r_i)) / 2, P(r) the precision at rank r, P(0) = 1; the standard one is 1/n sum_i P(r_i).
    For a query without a match the published code divides 0 by 0, so that its mean is NaN; here such a query counts
    with an average precision of 0 and, as there, a miss at every rank of the CMC, and the result names it. (MARS has
    none.) Source: Zheng et al., "MARS: A Video Benchmark for Large-Scale Person Re-identification", ECCV 2016, and
    its evaluation code.

    Raises InputError for shapes that do not fit, distances that are not finite, and queries that are not rows of the
    gallery or not persons.
    """
    table = _features(distance, "distance")
    protocol = _Protocol(len(table), labels, cameras, query_index)
    if table.shape[1] != len(protocol.query_index):
        queries = len(protocol.query_index)
        raise InputError(f"distance: {table.shape[1]} columns, expected one for each of {queries} queries")
    return protocol.score(lambda part: table[protocol.kept, part].T, chunk)


class _Protocol:
    """Who may match whom: the checked labels, cameras and queries, and the gallery rows that are not junk (`kept`)."""

    def __init__(self, rows: int, labels: ArrayLike, cameras: ArrayLike, query_index: ArrayLike) -> None:
        label = _integers(labels, "gallery labels", length=rows)
        camera = _integers(cameras, "gallery cameras", length=rows)
        self.rows = rows
        self.query_index = _integers(query_index, "query index")
        if not self.query_index.size:
            raise InputError("query index: empty, expected at least one query")
        for position, row in enumerate(self.query_index):
            if not 0 <= row < rows:
                raise InputError(f"query {position}: gallery row {row}, expected 0 to {rows - 1}")
            if label[row] in (JUNK, DISTRACTOR):
                raise InputError(f"query {position}: gallery row {row} has label {label[row]}, expected a person")
        self.kept = np.flatnonzero(label != JUNK)
        self.label, self.camera = label[self.kept], camera[self.kept]
        self.query_label, self.query_camera = label[self.query_index], camera[self.query_index]

    def score(self, distance: Callable[[slice], FloatArray], chunk: int) -> RetrievalResult:
        """`distance` maps a slice of the queries to their distances (queries, kept rows)."""
        if chunk < 1:
            raise InputError(f"chunk: {chunk} queries, expected 1 or more")
        queries = len(self.query_index)
        trapezoid, standard = np.zeros(queries), np.zeros(queries)
        matches, found = np.zeros(queries, np.int64), np.zeros(self.rows, np.int64)
        for start in range(0, queries, chunk):
            part = slice(start, start + chunk)
            query, rank = self._match_ranks(distance(part), part)
            count = np.bincount(query, minlength=len(self.query_index[part]))
            begins = np.cumsum(count) - count
            hit = np.arange(len(query)) - begins[query] + 1
            precision = hit / rank
            before = np.where(rank > 1, (hit - 1) / np.maximum(rank - 1, 1), 1.0)
            for values, mean in ((precision, standard), ((before + precision) / 2, trapezoid)):
                mean[part] = np.bincount(query, values, len(count)) / np.maximum(count, 1)
            matches[part] = count
            found += np.bincount(rank[hit == 1] - 1, minlength=self.rows)
        return RetrievalResult(
            map_trapezoid=float(trapezoid.mean()),
            map_standard=float(standard.mean()),
            cmc=np.cumsum(found) / queries,
            queries_without_match=np.flatnonzero(matches == 0),
        )

    def _match_ranks(self, distance: FloatArray, part: slice) -> tuple[IntArray, IntArray]:
        """Return, for every match in order of query and rank, the query's place in `part` and the rank from 1."""
        order = np.argsort(distance, axis=1, kind="stable")
        same_person = self.label[order] == self.query_label[part, None]
        same_camera = self.camera[order] == self.query_camera[part, None]
        ranks = np.cumsum(~(same_person & same_camera), axis=1)
        query, at = np.nonzero(same_person & ~same_camera)
        return query, ranks[query, at]


def _divide_rows(rows: FloatArray, divisors: FloatArray) -> FloatArray:
    return rows / np.where(divisors > 0, divisors, 1)[:, None]


def _table(values: ArrayLike, name: str) -> NDArray[np.number]:
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise InputError(f"{name}: expected numbers in two dimensions, found {array.dtype} of shape {array.shape}")
    return array


def _precision(table: NDArray[np.number]) -> type[np.floating]:
    """Return float32 for half and single precision, float64 for all else."""
    return np.float32 if table.dtype.kind == "f" and table.dtype.itemsize <= 4 else np.float64


def _features(values: ArrayLike, name: str) -> FloatArray:
    """Check for a finite (N, D) table and convert it to the precision it is computed in."""
    table = _table(values, name)
    array: FloatArray = table.astype(_precision(table), copy=False)
    broken = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if broken.size:
        raise InputError(f"{name}: row {broken[0]} has a value that is not finite")
    return array


def _integers(values: ArrayLike, name: str, length: int | None = None) -> IntArray:
    """Check for whole numbers in one dimension, `length` of them where given."""
    array = np.asarray(values)
    if array.ndim != 1 or (length is not None and len(array) != length):
        raise InputError(f"{name}: expected shape ({'N' if length is None else length},), found {array.shape}")
    if array.size and (array.dtype.kind not in "fiu" or not (np.isfinite(array) & (array == np.trunc(array))).all()):
        raise InputError(f"{name}: expected whole numbers, found other {array.dtype} values")
    return array.astype(np.int64)
