"""`imae retrieval` and `imae reproduce`: what the paper evaluates and draws, from the shell."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imae.experiments.mars_info import read_query_index, read_tracks, write_miniature
from imae.experiments.retrieval import average_features, evaluate

Imae = Callable[..., Any]


@pytest.fixture
def mars(tmp_path: Path) -> Path:
    """A miniature MARS, with features for each test frame."""
    write_miniature(tmp_path / "mars")
    frames = int(read_tracks(tmp_path / "mars/info/tracks_test_info.mat").last.max())
    features = np.random.default_rng(3).normal(size=(frames, 8)).astype(np.float32)
    np.save(tmp_path / "frames.npy", features)
    return tmp_path


def test_retrieval_scores_features_of_frames_and_of_tracks_alike(imae: Imae, mars: Path) -> None:
    info = mars / "mars/info"
    tracks = read_tracks(info / "tracks_test_info.mat")
    of_tracks = average_features(np.load(mars / "frames.npy"), tracks.first, tracks.last)
    np.save(mars / "tracks.npy", of_tracks)
    query = read_query_index(info / "query_IDX.mat")
    expected = evaluate(of_tracks, tracks.person, tracks.camera, query)
    outcomes = [imae("retrieval", "--features", mars / f"{what}.npy", "--info", info) for what in ("frames", "tracks")]
    assert [outcome.status for outcome in outcomes] == [0, 0]
    assert outcomes[0].out == outcomes[1].out
    words = dict(line.rsplit(None, 1) for line in outcomes[0].out.splitlines()[1:5])
    assert float(words["mAP"]) == pytest.approx(100 * expected.map_trapezoid, abs=0.005)
    assert float(words["mAP, not interpolated"]) == pytest.approx(100 * expected.map_standard, abs=0.005)
    assert float(words["CMC-1"]) == pytest.approx(100 * expected.cmc[0], abs=0.005)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"no features"), "cannot be read as a .npy file"),
        (lambda path: np.save(path, np.zeros((3, 4))), "has 3 rows of features"),
        (lambda path: np.save(path, np.array([{}])), "cannot be read as a .npy file"),
        (lambda path: None, "cannot be read as a .npy file"),
    ],
)
def test_retrieval_refuses_features_that_do_not_fit(
    imae: Imae, mars: Path, write: Callable[[Path], None], message: str
) -> None:
    write(mars / "wrong.npy")
    outcome = imae("retrieval", "--features", mars / "wrong.npy", "--info", mars / "mars/info")
    assert outcome.status == 1
    assert message in outcome.err and outcome.err.count("\n") == 1


def test_reproduce_weights_gives_table_4_and_the_figures(imae: Imae, tmp_path: Path) -> None:
    outcome = imae("reproduce", "weights", "--output", tmp_path / "weights")
    assert outcome.status == 0, outcome.err
    row = next(line.split() for line in outcome.out.splitlines() if "T = 8" in line)
    assert row[-3:] == ["4.546085", "4.546085", "4.546"]
    assert len(list((tmp_path / "weights").glob("*.png"))) == 2
