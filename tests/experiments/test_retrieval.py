"""The MARS protocol: the recorded results of the published code, and rankings worked out by hand."""

import time
from pathlib import Path

import numpy as np
import pytest

from imae.experiments.retrieval import (
    average_features,
    cosine_distance,
    evaluate,
    evaluate_distance,
    normalise,
)
from imae.prototxt_like.errors import InputError

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "retrieval.npz")
PROBLEMS = sorted({key.split("_")[0] for key in GOLDEN.files})


def rank(*gallery: tuple[int, int], query: tuple[int, int] = (7, 1)):
    """Score one query, itself at distance 0 in row 0, against (label, camera) rows in the order of their distance."""
    rows = [query, *gallery]
    distance = np.arange(len(rows), dtype=float)[:, None]
    return evaluate_distance(distance, [label for label, _ in rows], [camera for _, camera in rows], [0])


MATCH, OTHER, JUNK, DISTRACTOR, SAME_CAMERA = (7, 2), (8, 2), (-1, 2), (0, 2), (7, 1)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("chunk", [2, 128])
def test_agrees_with_the_published_code(problem, chunk):
    names = ("distance", "gallery_label", "gallery_camera", "query_index")
    result = evaluate_distance(*(GOLDEN[f"{problem}_{name}"] for name in names), chunk=chunk)
    assert result.map_trapezoid == pytest.approx(float(GOLDEN[f"{problem}_map"]), abs=1e-12)
    np.testing.assert_allclose(result.cmc, GOLDEN[f"{problem}_cmc"], atol=1e-12, rtol=0)
    assert result.queries_without_match.size == 0


def test_all_recorded_problems_are_there():
    assert len(PROBLEMS) == 30


def test_a_match_in_front_scores_one():
    result = rank(MATCH, OTHER)
    assert (result.map_trapezoid, result.map_standard) == (1, 1)
    assert result.cmc.tolist() == [1, 1, 1]


def test_average_precision_by_hand():
    # Ranks 2 and 4: precisions 1/2 and 2/4, before them 0/1 and 1/3.
    result = rank(OTHER, MATCH, OTHER, MATCH)
    assert result.map_standard == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert result.map_trapezoid == pytest.approx(((0 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)
    assert result.cmc.tolist() == [0, 1, 1, 1, 1]


def test_junk_and_the_same_camera_are_left_out_of_the_ranking():
    assert rank(JUNK, SAME_CAMERA, OTHER, JUNK, MATCH, SAME_CAMERA).map_standard == rank(OTHER, MATCH).map_standard


def test_distractors_and_other_persons_in_the_same_camera_are_misses():
    for miss in (DISTRACTOR, (0, 1), (8, 1)):
        assert rank(miss, MATCH).map_standard == 1 / 2


def test_equal_distances_keep_the_order_of_the_gallery():
    labels, cameras = [7, 8, 7, 8, 7], [1, 2, 2, 2, 2]
    result = evaluate_distance(np.zeros((5, 1)), labels, cameras, [0])
    assert result.map_standard == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert evaluate_distance([[0], [1], [0], [1], [1]], labels, cameras, [0]).map_standard == (1 / 1 + 2 / 4) / 2


def test_a_query_without_a_match_counts_as_missed_and_is_named():
    labels, cameras = [7, 9, 7, 8], [1, 1, 2, 1]
    distance = [[0, 3], [2, 0], [1, 1], [3, 2]]
    result = evaluate_distance(distance, labels, cameras, [0, 1])
    assert (result.map_trapezoid, result.map_standard) == (0.5, 0.5)
    assert result.cmc.tolist() == [0.5] * 4
    assert result.queries_without_match.tolist() == [1]


def brute_force(distance, labels, cameras, query_index):
    """The protocol row by row, as one reads it in the paper."""
    trapezoids, standards = [], []
    for query, row in enumerate(query_index):
        hits, seen, precision, trapezoid, standard = 0, 0, 1.0, 0.0, 0.0
        for other in sorted(range(len(labels)), key=lambda g: distance[g][query]):
            same = labels[other] == labels[row]
            if labels[other] == -1 or (same and cameras[other] == cameras[row]):
                continue
            hits, seen, before = hits + same, seen + 1, precision
            precision = hits / seen
            if same:
                trapezoid, standard = trapezoid + (before + precision) / 2, standard + precision
        trapezoids.append(trapezoid / max(hits, 1))
        standards.append(standard / max(hits, 1))
    return np.mean(trapezoids), np.mean(standards)


def test_agrees_with_the_protocol_row_by_row_on_rankings_with_many_ties():
    random = np.random.default_rng(0)
    for _ in range(30):
        rows = int(random.integers(2, 40))
        labels, cameras = random.integers(-1, 4, rows), random.integers(1, 4, rows)
        labels[0] = 1
        query_index = np.flatnonzero(labels > 0)
        distance = random.integers(0, 5, (rows, len(query_index)))
        result = evaluate_distance(distance, labels, cameras, query_index, chunk=3)
        expected = brute_force(distance, labels, cameras, query_index)
        assert (result.map_trapezoid, result.map_standard) == pytest.approx(expected, abs=1e-12)


def test_features_give_what_their_cosine_distances_give():
    random = np.random.default_rng(0)
    features = random.standard_normal((60, 8))
    labels, cameras = random.integers(-1, 5, 60), random.integers(1, 4, 60)
    query_index = np.flatnonzero(labels > 0)[::2]
    expected = evaluate_distance(cosine_distance(features, features[query_index]), labels, cameras, query_index)
    for chunk in (1, 7, 128):
        result = evaluate(1e3 * features, labels, cameras, query_index, chunk=chunk)
        assert result.map_trapezoid == pytest.approx(expected.map_trapezoid, abs=1e-12)
        np.testing.assert_array_equal(result.cmc, expected.cmc)


@pytest.mark.slow
def test_the_size_of_mars_takes_seconds():
    random = np.random.default_rng(0)
    labels, cameras = random.integers(-1, 636, 12180), random.integers(1, 7, 12180)
    features = random.standard_normal((12180, 64), dtype=np.float32)
    start = time.process_time()
    evaluate(features, labels, cameras, np.flatnonzero(labels > 0)[:1980])
    assert time.process_time() - start < 10


def test_normalise_gives_unit_rows_and_leaves_zero_alone():
    rows = np.array([[3, 4], [0, 0], [3e200, 4e200], [-3e-200, 4e-200]])
    np.testing.assert_allclose(normalise(rows), [[0.6, 0.8], [0, 0], [0.6, 0.8], [-0.6, 0.8]], rtol=1e-15)
    assert normalise(rows[:2].astype(np.float16)).dtype == np.float32


def test_cosine_distance_by_hand():
    distance = cosine_distance([[2.0, 0], [0, 0]], [[1.0, 0], [0, 5], [-1, 0]])
    np.testing.assert_allclose(distance, [[0, 1, 2], [1, 1, 1]])


def test_average_features_takes_both_ends_of_a_range():
    frames = np.arange(10, dtype=np.float32).reshape(5, 2)
    means = average_features(frames, [1, 3, 5], [2, 5, 5])
    assert means.tolist() == [[1, 2], [6, 7], [8, 9]]
    assert means.dtype == np.float32


def test_average_features_does_not_lose_small_frames_after_a_large_one():
    frames = np.full((2001, 1), 0.5, np.float32)
    frames[0] = 2**24
    assert average_features(frames, [1], [2001])[0, 0] == np.float32((2**24 + 1000) / 2001)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: evaluate_distance(np.zeros((3, 2)), [1, 1, 1], [1, 2, 3], [0]),
            "2 columns, expected one for each of 1",
        ),
        (lambda: evaluate_distance(np.zeros(3), [1, 1, 1], [1, 2, 3], [0]), r"two dimensions.*\(3,\)"),
        (lambda: evaluate_distance(np.zeros((3, 1)), [1, 1], [1, 2, 3], [0]), r"labels.*\(3,\).*\(2,\)"),
        (lambda: evaluate_distance(np.zeros((3, 1)), [1, 1, 1], [[1, 2, 3]], [0]), r"cameras.*\(3,\).*\(1, 3\)"),
        (lambda: evaluate_distance(np.zeros((3, 1)), [1, 1.5, 1], [1, 2, 3], [0]), "labels.*whole numbers"),
        (lambda: evaluate_distance(np.zeros((3, 1)), [1, np.inf, 1], [1, 2, 3], [0]), "labels.*whole numbers"),
        (lambda: evaluate_distance(np.zeros((3, 1)), [1, 1, 1], [1, 2, 3], [3]), "query 0: .*row 3.*0 to 2"),
        (lambda: evaluate_distance(np.zeros((3, 1)), [1, 1, 1], [1, 2, 3], [-1]), "query 0: .*row -1.*0 to 2"),
        (lambda: evaluate_distance(np.zeros((3, 1)), [0, 1, 1], [1, 2, 3], [0]), "query 0: .*label 0.*a person"),
        (lambda: evaluate_distance(np.zeros((3, 0)), [1, 1, 1], [1, 2, 3], []), "query index: empty"),
        (lambda: evaluate(np.array([[0, 1], [np.nan, 0]]), [1, 1], [1, 2], [0]), "row 1 .*not finite"),
        (lambda: evaluate(np.array([["a"], ["b"]]), [1, 1], [1, 2], [0]), "expected numbers"),
        (lambda: evaluate(np.zeros((2, 3)), [1, 1], [1, 2], [0], chunk=0), "chunk"),
        (lambda: cosine_distance(np.zeros((2, 3)), np.zeros((2, 4))), "3 and of 4 dimensions"),
        (lambda: average_features(np.zeros((4, 2)), [1, 3], [2, 5]), "tracklet 1: frames 3 to 5.*1 to 4"),
        (lambda: average_features(np.zeros((4, 2)), [0], [2]), "tracklet 0: frames 0 to 2"),
        (lambda: average_features(np.zeros((4, 2)), [1], [2, 3]), "last frames"),
        (lambda: average_features(np.full((4, 2), np.nan), [1], [2]), "tracklet features: row 0 .*not finite"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
