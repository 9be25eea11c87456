"""Wrong labels are found, counted and told apart from right ones, by the labels at hand alone."""

import importlib.util
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import imae
from imae.audit import find_label_issues, label_issues, noise_model
from imae.audit.label_issues import LabelIssues
from imae.audit.near_duplicates import undecided_classes
from imae.audit.noise_model import Interval, fit_noise_model
from imae.layers.data.label_noise import corrupt
from imae.prototxt_like.errors import InputError


@pytest.fixture(scope="module")
def digits() -> SimpleNamespace:
    images, labels = load_digits(return_X_y=True)
    noisy = corrupt(labels, 10, "SYMMETRIC", 0.5, seed=4)
    return SimpleNamespace(images=images, noisy=noisy, wrong=noisy != labels, labels=labels)


@pytest.fixture(scope="module")
def found(digits: SimpleNamespace) -> LabelIssues:
    return find_label_issues(digits.images, digits.noisy)


def test_the_wrong_ones_come_first(digits: SimpleNamespace, found: LabelIssues) -> None:
    assert roc_auc_score(digits.wrong, found.score) > 0.985  # cross entropy, out of sample: 0.98
    wrong = int(digits.wrong.sum())
    assert digits.wrong[found.order[:wrong]].mean() > 0.95
    flagged = found.is_issue
    assert 2 * (flagged & digits.wrong).sum() / (flagged.sum() + wrong) > 0.95
    suspects = found.order[: wrong // 2]
    assert (found.suggested[suspects] == digits.labels[suspects]).mean() > 0.9


def test_how_many_are_wrong_is_known_without_one_right_label(digits: SimpleNamespace, found: LabelIssues) -> None:
    for n in (len(digits.noisy) // 20, int(digits.wrong.sum())):
        true = digits.wrong[found.order[:n]].sum()
        assert found.expected_wrong(n) == pytest.approx(true, rel=0.1)
    rate = found.noise_rate
    assert rate.low < rate.value < rate.high
    assert rate.value == pytest.approx(digits.wrong.mean(), abs=0.05)
    assert found.transition.value.diagonal().mean() == pytest.approx(0.55, abs=0.08)
    assert (found.transition.low <= found.transition.high).all()


def test_where_half_the_labels_are_one_other_class_the_audit_says_that_nothing_tells(
    digits: SimpleNamespace, found: LabelIssues
) -> None:
    assert undecided_classes(found.transition.value) == []
    half = find_label_issues(digits.images, corrupt(digits.labels, 10, "PAIR_FLIP", 0.5, seed=4), parameter=8.0)
    assert len(undecided_classes(half.transition.value)) >= 5


def test_probabilities_rise_with_the_score_and_are_some(found: LabelIssues) -> None:
    assert (np.diff(found.p_wrong[found.order]) <= 1e-12).all()
    assert ((found.p_suggested >= 0) & (found.p_suggested <= found.p_wrong + 1e-9)).all()
    assert (found.suggested != found.label).all()


@pytest.mark.parametrize(
    ("p_wrong", "issues"), [([0.4, 0.0, 0.001], 0), ([0.0, 0.001, 0.6], 1), ([0.9, 0.1, 0.8], 2), ([0.3] * 3, 3)]
)
def test_as_many_are_to_look_at_as_find_most_and_none_where_no_error_is_expected(
    p_wrong: list[float], issues: int
) -> None:
    p = np.array(p_wrong)
    flagged = label_issues._best_f1(p, p)
    assert flagged.sum() == issues and set(np.argsort(-p)[:issues]) == set(flagged.nonzero()[0])


def test_many_labels_are_judged_in_blocks(found: LabelIssues, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_issues, "ENTRIES", 1000)  # 100 samples of ten classes
    logits, label = torch.from_numpy(found.logits), torch.from_numpy(found.label)
    again = label_issues.judge(logits, label, found.classes, found.picked)
    for name in ("score", "p_wrong", "suggested", "p_suggested", "is_issue"):
        np.testing.assert_allclose(getattr(again, name), getattr(found, name), 1e-5)


def test_what_was_picked_is_told(found: LabelIssues) -> None:
    picked = found.picked
    assert picked.parameter in {2.0, 4.0, 8.0, 16.0} and len(picked.tried) == 24
    assert picked.accuracy_held_out < picked.accuracy_trained < 1


@pytest.mark.parametrize("seed", [0, 2])
def test_few_samples_that_are_hard_are_not_taken_for_wrong_labels(seed: int) -> None:
    draws = np.random.default_rng(seed)
    centres, labels = draws.normal(0, 0.33, (8, 60)), draws.integers(0, 8, 500)
    features = centres[labels] + draws.normal(size=(500, 60))
    wrong = draws.random(500) < 0.15
    noisy = np.where(wrong, draws.integers(0, 8, 500), labels)
    for given, accuracy in ((labels, 0.8), (noisy, 0.7)):
        found = find_label_issues(features, given, parameter=8.0, folds=5)
        assert (found.logits.argmax(1) == given).mean() < accuracy  # a fifth of them are hard
        assert float(found.noise_rate.value) == pytest.approx((given != labels).mean(), abs=0.06)


@pytest.mark.parametrize("parted_twice", [0, 20_000])
def test_by_folds_no_sample_is_scored_by_a_head_that_learnt_it(
    parted_twice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_issues, "PARTED_TWICE", parted_twice)
    draws = np.random.default_rng(0)
    noise, labels = draws.normal(size=(200, 400)), draws.integers(0, 4, 200)
    apart, by_heart = (find_label_issues(noise, labels, parameter=8.0, folds=folds) for folds in (2, 0))
    assert (by_heart.logits.argmax(1) == labels).mean() > 0.9
    assert (apart.logits.argmax(1) == labels).mean() < 0.4


def test_names_data_sets_losses_and_folds(digits: SimpleNamespace) -> None:
    part = slice(0, 300)
    names = np.array(list("abcdefghij"))[digits.noisy[part]]
    by_name = find_label_issues(digits.images[part], names, loss="GCE", parameter=0.7, folds=3)
    assert by_name.classes == list("abcdefghij") and by_name.picked.folds == 3
    assert {attempt["parameter"] for attempt in by_name.picked.tried} == {0.7}
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(digits.images[part]), torch.from_numpy(digits.noisy[part]))
    of_pairs = find_label_issues(pairs, loss="GCE", parameter=0.7, folds=3)
    np.testing.assert_array_equal(of_pairs.score, by_name.score)
    hidden = find_label_issues(digits.images[part], names, hidden=8, parameter=8.0, folds=0)
    assert roc_auc_score(digits.wrong[part], hidden.score) > 0.85


def test_the_audit_says_where_its_head_is_too_poor_to_be_believed(found: LabelIssues) -> None:
    assert found.doubt == ""
    draws = np.random.default_rng(0)
    nothing = find_label_issues(draws.normal(size=(500, 20)), draws.integers(0, 3, 500))
    assert nothing.doubt.endswith("nothing found here can be trusted")
    poor = replace(found, picked=replace(found.picked, accuracy_held_out=0.3))
    assert "hard samples" in poor.doubt


@pytest.mark.parametrize(
    ("unclear", "accuracy", "doubtful"), [(0, 0.5, False), (1, 0.5, True), (1, 0.6, False), (4, 0.6, True)]
)
def test_the_audit_says_where_classes_have_other_labels_about_as_often_as_their_own(
    unclear: int, accuracy: float, doubtful: bool, found: LabelIssues
) -> None:
    matrix = np.eye(10) * 0.65 + 0.035
    for i in range(unclear):
        matrix[i, i], matrix[i, 9] = 0.4, 0.32
    doubt = replace(
        found,
        noise_rate=Interval(np.array(0.3), np.array(0.29), np.array(0.31)),
        transition=Interval(matrix, matrix, matrix),
        picked=replace(found.picked, accuracy_held_out=accuracy),
    ).doubt
    assert doubt.startswith(f"Of {unclear} of 10 classes another label seems") if doubtful else not doubt


def test_a_data_frame_where_pandas_is(found: LabelIssues) -> None:
    if importlib.util.find_spec("pandas") is None:
        assert found.frame is None
        pytest.skip("pandas is not installed")
    assert list(found.frame.columns) == ["label", "score", "p_wrong", "suggested", "p_suggested", "is_issue"]
    assert found.frame["label"].iloc[0] == str(found.label[0])


def test_the_noise_model_finds_the_transition_matrix_that_labels_were_drawn_by(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    transition = np.array([[0.7, 0.3, 0.0], [0.0, 0.8, 0.2], [0.1, 0.1, 0.8]])
    logits = 4 * draws.normal(size=(6000, 3))
    truth = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    true = (truth.cumsum(1) < draws.random((6000, 1))).sum(1)
    labels = (transition.cumsum(1)[true] < draws.random((6000, 1))).sum(1).clip(0, 2)
    z, y = torch.from_numpy(logits / 3).float(), torch.from_numpy(labels)  # too soft by 3
    model = fit_noise_model(z, y)
    np.testing.assert_allclose(model.transition, transition, atol=0.05)
    assert float(model.mix[0, 0]) == pytest.approx(3, rel=0.2)
    p_wrong = 1 - model.posterior(z, y).gather(1, y[:, None])[:, 0].numpy()
    assert p_wrong.mean() == pytest.approx((labels != true).mean(), abs=0.02)
    mixed = fit_noise_model(z, y, mixed=True)
    assert mixed.log_likelihood(z, y) > model.log_likelihood(z, y) - 1e-3
    assert mixed.likeness < 0.1
    errors = {}
    for samples in (0, 30_000):  # beyond the first 500
        monkeypatch.setattr(noise_model, "SAMPLES", 500)
        monkeypatch.setattr(noise_model, "MORE_SAMPLES", max(500, samples))
        errors[samples] = np.abs(fit_noise_model(z, y, mixed=True).transition.numpy() - transition).max()
    assert errors[30_000] < errors[0]


def test_the_likelihood_of_a_noise_model_has_the_gradient_that_finite_differences_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(noise_model, "SAMPLES", 300)  # in three blocks
    draws = np.random.default_rng(0)
    z = torch.from_numpy(3 * draws.normal(size=(800, 3))).float()
    y = torch.from_numpy(draws.integers(0, 3, 800))
    for mixed in (False, True):
        likelihood = noise_model._Likelihood(z, y, mixed)
        at = likelihood.begin + 0.1 * draws.normal(size=len(likelihood.begin))
        at[-1] = 0.2
        gradient = likelihood(at)[1]
        for i, step in enumerate(0.02 * np.eye(len(at))):
            measured = (likelihood(at + step)[0] - likelihood(at - step)[0]) / 0.04
            assert gradient[i] == pytest.approx(measured, abs=1e-3 + 1e-2 * abs(measured))


def with_threads(threads: int, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return fit_noise_model(z.repeat(2, 1), y.repeat(2), mixed=True, iterations=20).mix
    finally:
        torch.set_num_threads(before)


def test_the_noise_model_finds_that_labels_are_wrong_where_samples_look_like_another_class() -> None:
    draws = np.random.default_rng(0)
    logits = 6 * draws.normal(size=(6000, 3))
    z = torch.from_numpy(logits).float()
    truth = torch.softmax(noise_model.tempered(z, float(z.std()), noise_model.TEMPER), 1).double().numpy()
    true = (truth.cumsum(1) < draws.random((6000, 1))).sum(1)
    rows = np.array([[0.6, 0.3, 0.1], [0.1, 0.7, 0.2], [0.2, 0.2, 0.6]])[true] * truth**0.2
    chances = rows / rows.sum(1, keepdims=True)
    labels = (chances.cumsum(1) < draws.random((6000, 1))).sum(1).clip(0, 2)
    y = torch.from_numpy(labels)
    rates = {}
    for mixed in (False, True):
        model = fit_noise_model(z, y, mixed=mixed)
        rates[mixed] = 1 - float(model.posterior(z, y).gather(1, y[:, None]).mean())
    wrong = (labels != true).mean()
    assert rates[True] == pytest.approx(wrong, abs=0.02)
    assert rates[False] < wrong - 0.05
    assert torch.equal(with_threads(2, z, y), with_threads(1, z, y))
    assert model.likeness > 0.1


def test_of_many_classes_the_noise_model_has_one_probability_of_a_wrong_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_model, "MANY", 4)
    draws = np.random.default_rng(0)
    logits = 4 * draws.normal(size=(6000, 5))
    true = (logits + draws.gumbel(size=logits.shape)).argmax(1)
    wrong = draws.random(6000) < 0.3
    labels = np.where(wrong, (true + draws.integers(1, 5, 6000)) % 5, true)
    z, y = torch.from_numpy(logits / 3).float(), torch.from_numpy(labels)
    model = fit_noise_model(z, y)
    np.testing.assert_allclose(model.transition, np.full((5, 5), 0.075) + 0.625 * np.eye(5), atol=0.02)
    assert float(model.mix) == pytest.approx(3, rel=0.2)
    p_wrong = 1 - model.posterior(z, y).gather(1, y[:, None])[:, 0].numpy()
    assert p_wrong.mean() == pytest.approx(wrong.mean(), abs=0.02)


@pytest.mark.slow
def test_many_classes() -> None:
    draws = np.random.default_rng(0)
    true = np.repeat(np.arange(300), 10)
    features = 2 * draws.normal(size=(300, 64))[true] + draws.normal(size=(3000, 64))
    wrong = draws.random(3000) < 0.2
    found = find_label_issues(features, np.where(wrong, (true + draws.integers(1, 300, 3000)) % 300, true))
    assert roc_auc_score(wrong, found.score) > 0.99
    assert float(found.noise_rate.value) == pytest.approx(wrong.mean(), abs=0.02)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        ([[1, 2], [3]] * 15, [0, 1] * 15, "features: expected numbers, a row for each sample"),
        (np.full((30, 2), "x", object), [0, 1] * 15, "features: expected numbers, a row for each sample"),
        (np.zeros((30, 2)), np.array([None, "a"] * 15, object), "label 1 is missing"),
        (np.zeros((30, 2)), np.array(["a", float("nan")] * 15, object), "label 2 is missing"),
    ],
)
def test_features_and_labels_that_are_none(features: object, labels: object, message: str) -> None:
    with pytest.raises(InputError) as error:
        find_label_issues(features, labels)  # type: ignore[arg-type]
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "CE"}, "loss must be one of IMAE, GCE, CCE, MAE, not 'CE'"),
        ({"loss": "CCE", "parameter": 2.0}, "CCE has no parameter: T is IMAE's, q is GCE's"),
        ({"parameter": -1.0}, "T must lie in [0, 64], not -1"),
        ({"folds": 1}, "folds must be 0, or 2 to 25, a quarter of the samples, not 1"),
        ({"seeds": 0}, "hidden must be at least 0 and seeds at least 1, not 0 and 0"),
    ],
)
def test_settings_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        find_label_issues(np.random.default_rng(0).normal(size=(100, 2)), np.arange(100) % 2, **options)  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.slow
def test_the_classifier_passes_scikit_learns_own_checks() -> None:
    from sklearn.utils.estimator_checks import check_estimator

    results = check_estimator(imae.IMAEClassifier(iterations=50), on_fail=None, on_skip=None)
    assert len(results) > 40
    assert [result for result in results if result["status"] == "failed"] == []


def test_the_classifier_does_not_mind_wrong_labels(digits: SimpleNamespace) -> None:
    accuracy = {}
    for loss in ("IMAE", "CCE"):
        classifier = imae.IMAEClassifier(loss=loss, iterations=500).fit(digits.images[:1200], digits.noisy[:1200])
        accuracy[loss] = classifier.score(digits.images[1200:], digits.labels[1200:])
        assert classifier.predict_proba(digits.images[:7]).sum(1) == pytest.approx(np.ones(7))
    assert accuracy["IMAE"] > accuracy["CCE"] + 0.03
    with pytest.raises(InputError, match="loss must be one of IMAE, GCE, CCE, MAE, not 'XYZ'"):
        imae.IMAEClassifier(loss="XYZ").fit(digits.images, digits.labels)
    with pytest.raises(InputError, match="iterations must be at least 1, not 0"):
        imae.IMAEClassifier(iterations=0).fit(digits.images, digits.labels)
