"""Retrieval of unseen digits: who is trained on what, what is ranked, and that a run's result outlives a stop."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from imae.experiments import digits_retrieval
from imae.experiments.digits_retrieval import (
    ACCURACY_COLUMNS,
    CAMERAS,
    RANKS,
    RETRIEVAL_COLUMNS,
    SEEN,
    UNSEEN,
    Row,
    Run,
    Scores,
    compare,
    make_tracklets,
    reading_of,
    retrieval_net,
    saved_results,
    score,
    select_runs,
    write_report,
)
from imae.layers.data.digits_data import load_digits
from imae.layers.data.image_set import ImageSetData
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TRAIN

ITERATIONS = 4
RUNS = [Run(50, "CCE", 1), Run(50, "IMAE", 1)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    """Two runs, and the rows of all."""
    output = tmp_path_factory.mktemp("undisturbed")
    return output, compare(output, RUNS, ITERATIONS)


def results(rows: list[Row]) -> list[tuple[object, ...]]:
    """All of the losses' rows but the seconds."""
    return [(r.run, r.scores, r.test, r.corrupted, r.intact) for row in rows for r in row.results]


def row(name: str, noise: int | None, mean_average_precision: float) -> Row:
    return Row(name, noise, [Scores(mean_average_precision, mean_average_precision, [1.0] * max(RANKS))])


def test_tracklets_hold_each_image_of_an_unseen_digit_once() -> None:
    tracklets = make_tracklets()
    images, labels = (torch.cat(parts) for parts in zip(load_digits(True), load_digits(False), strict=True))
    unseen = images[torch.isin(labels, torch.tensor(UNSEEN))].flatten(1).numpy()
    ours = tracklets.images.flatten(1).numpy()
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], unseen[np.lexsort(unseen.T)])
    lengths = tracklets.last - tracklets.first + 1
    assert set(lengths) == {4, 5} and lengths.sum() == len(ours) == tracklets.last[-1]
    label_of = {image.numpy().tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    labels_of_images = [label_of[image.numpy().tobytes()] for image in tracklets.images]
    assert labels_of_images == np.repeat(tracklets.digit, lengths).tolist()


def test_every_query_has_matches_in_all_other_cameras() -> None:
    tracklets = make_tracklets()
    assert 0 < len(tracklets.query) < len(tracklets.digit)
    assert set(tracklets.digit[tracklets.query]) == set(UNSEEN)
    for digit in UNSEEN:
        assert set(tracklets.camera[tracklets.digit == digit]) == set(range(1, CAMERAS + 1))


def test_the_net_trains_on_the_seen_digits_alone_and_wrong_labels_are_alike_for_all_losses() -> None:
    labels = []
    for loss in ("CCE", "IMAE"):
        net = Net(retrieval_net(Run(50, loss, 3)), TRAIN)
        data = net.steps[0].layer
        assert isinstance(data, ImageSetData)
        images, digits = load_digits(True)
        seen = torch.isin(digits, torch.tensor(SEEN))
        assert torch.equal(data.images, images[seen]) and torch.equal(data.intact, digits[seen])
        assert net.shapes[net.newest["score"]][1] == len(SEEN)
        labels.append(data.labels)
    assert torch.equal(*labels)
    assert set(labels[0].tolist()) == set(SEEN)
    # Half are replaced at random, of which a fifth hit the class that they had: 0.4 of 630, standard deviation 0.02.
    assert 0.34 < (labels[0] != data.intact).float().mean() < 0.46


def test_the_features_are_those_of_the_layer_before_the_classifier_in_the_test_phase() -> None:
    solver = digits_retrieval._solver(RUNS[0], ITERATIONS)
    solver.step(ITERATIONS)
    net = solver.test_nets[0]
    net.keep_blobs = True
    net.forward()
    images, digits = load_digits(False)
    features = digits_retrieval._features(solver, images[torch.isin(digits, torch.tensor(SEEN))])
    weights, bias = net.params["score"]
    scores = torch.from_numpy(features) @ weights.data.T + bias.data
    torch.testing.assert_close(scores, net.blobs["score"])


def test_features_that_tell_the_digits_apart_score_1_and_equal_ones_as_the_gallery_is_ordered() -> None:
    tracklets = make_tracklets()
    of_images = np.repeat(tracklets.digit, tracklets.last - tracklets.first + 1)
    perfect = score(np.eye(10)[of_images], tracklets)
    assert (perfect.map_trapezoid, perfect.map_standard, set(perfect.cmc)) == (1, 1, {1})
    assert len(perfect.cmc) == max(RANKS)
    equal = score(np.ones((len(of_images), 3)), tracklets)
    assert 0.1 < equal.map_trapezoid < 0.4


def test_baselines_come_first_and_pixels_of_digits_are_far_from_chance(undisturbed: tuple[Path, list[Row]]) -> None:
    _, rows = undisturbed
    assert [(row.name, row.noise) for row in rows] == [
        ("raw pixels", None),
        ("untrained net", None),
        ("chance", None),
        ("CCE", 50),
        ("IMAE", 50),
    ]
    assert rows[0].mean_map > 95
    assert 15 < rows[2].mean_map < 22  # one digit of five, of which a sixth, in the query's camera, is left out
    assert all(len(row.retrieval_cells) == len(RETRIEVAL_COLUMNS) for row in rows)
    assert all(len(row.accuracy_cells) == len(ACCURACY_COLUMNS) for row in rows[3:])


def test_runs_that_were_stopped_go_on_with_what_is_finished(
    undisturbed: tuple[Path, list[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done > ITERATIONS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path, RUNS, ITERATIONS, progress=stop)
    assert list(saved_results(tmp_path, RUNS, ITERATIONS)) == RUNS[:1]
    trained: list[str] = []
    rows = compare(tmp_path, RUNS, ITERATIONS, show=trained.append)
    assert len(trained) == 1 and "IMAE" in trained[0]
    assert results(rows) == results(undisturbed[1])
    monkeypatch.delattr(digits_retrieval, "_measure")
    assert results(compare(tmp_path, RUNS, ITERATIONS)) == results(rows)


def test_progress_counts_the_iterations_of_all_runs(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    compare(tmp_path, RUNS, ITERATIONS, progress=lambda *now: seen.append(now))
    assert seen == [("train", done, 2 * ITERATIONS) for done in range(1, 2 * ITERATIONS + 1)]


def test_results_of_other_iterations_and_damaged_ones_are_refused_by_name(
    undisturbed: tuple[Path, list[Row]], tmp_path: Path
) -> None:
    output, _ = undisturbed
    with pytest.raises(InputError, match=r"noise50_cce_seed1\.json: a run of 4 iterations, not 5"):
        compare(output, RUNS, 5)
    path = tmp_path / "runs" / "noise50_cce_seed1.json"
    path.parent.mkdir()
    for text in ("", "[]", '{"run": {}}', '{"run": 3, "scores": 4}'):
        path.write_text(text)
        with pytest.raises(InputError, match=r"noise50_cce_seed1\.json: is no result of a run"):
            saved_results(tmp_path, RUNS, ITERATIONS)


def test_runs_are_selected_by_noise_loss_and_seed() -> None:
    assert len(select_runs((), (), 3)) == 2 * 4 * 3
    assert select_runs([20, 20], ["imae"], 2) == [Run(20, "IMAE", 1), Run(20, "IMAE", 2)]
    with pytest.raises(InputError, match="--noise 101: expected a percentage"):
        select_runs([101], [], 1)
    with pytest.raises(InputError, match=r"--loss HINGE: .*expected one of CCE, MAE, GCE, IMAE"):
        select_runs([], ["hinge"], 1)


def test_the_reading_orders_the_losses_as_measured() -> None:
    rows = [row("chance", None, 0.2), row("IMAE", 50, 0.4), row("CCE", 50, 0.6), row("CCE", 0, 0.7)]
    assert reading_of(rows) == [
        "mAP, %, intact labels: CCE 70.0",
        "mAP, %, 50 % of the labels replaced at random: CCE 60.0 > IMAE 40.0",
        "mAP, %, for comparison: chance 20.0",
    ]


def test_the_report_is_one_page_with_its_figure_inside(undisturbed: tuple[Path, list[Row]], tmp_path: Path) -> None:
    _, rows = undisturbed
    pages = write_report(tmp_path, rows, command="imae reproduce digits-retrieval")
    assert {path.suffix for path in tmp_path.iterdir()} == {".html", ".md", ".png", ".svg", ".json"}
    html, markdown = (path.read_text() for path in pages)
    assert "data:image/svg+xml;base64," in html and "<td>raw pixels</td>" in html
    assert "| 50 | IMAE |" in markdown and "4 iterations" in markdown
    written = json.loads((tmp_path / "digits_retrieval.json").read_text())
    assert [each["name"] for each in written] == [row.name for row in rows]
    assert written[-1]["results"][0]["scores"]["map_trapezoid"] == rows[-1].scores[0].map_trapezoid
