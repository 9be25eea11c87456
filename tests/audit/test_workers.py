"""Heads trained apart are the same bits in this process, in several, and on an engine."""

import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from imae.audit import find_label_issues, workers
from imae.audit.features import Features
from imae.audit.heads import Setting, train_heads
from imae.audit.result import read_result
from imae.audit.run import AuditOptions, audit
from imae.audit.workers import engine, train_apart
from imae.prototxt_like.errors import InputError

SETTINGS = [Setting("IMAE", 8.0, rate) for rate in (0.01, 0.02, 0.03)]


def samples() -> tuple[Features, torch.Tensor, torch.Tensor]:
    draws = np.random.default_rng(0)
    counts = torch.from_numpy(draws.random((400, 3)) < 0.7)
    return Features(draws.normal(size=(400, 5))), torch.from_numpy(draws.integers(0, 3, 400)), counts


def test_heads_of_many_classes_and_seeds_are_trained_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, counts = samples()
    monkeypatch.setattr(workers, "COLUMNS", 6)  # two heads of three classes
    seen: list[tuple[int, int]] = []
    found = train_apart(
        features,
        labels,
        3,
        SETTINGS,
        seeds=[1, 2],
        iterations=10,
        counts=counts,
        on_progress=lambda *now: seen.append(now),
    )
    assert seen == [(done, 40) for done in range(1, 41)] and [heads.count for (heads,) in found] == [3, 3]
    for (heads,), seed in zip(found, (1, 2), strict=True):
        for group in (slice(0, 1), slice(1, 3)):
            (alone,) = train_heads(
                features, labels, 3, SETTINGS[group], iterations=10, counts=counts[:, group], seed=seed
            )
            assert all(torch.equal(a[group], b) for a, b in zip(heads.weights, alone.weights, strict=True))


@pytest.mark.slow
def test_processes_give_the_same_bits_and_tell_their_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the settings that are compared, and of folds and seeds."""
    monkeypatch.setattr(workers, "COLUMNS", 6)  # two heads of three classes
    features, labels, _ = samples()
    issues = []
    for jobs in (1, 2):
        seen: dict[str, tuple[int, int]] = {}
        issues.append(
            find_label_issues(
                features,
                labels.numpy(),
                folds=2,
                seeds=2,
                jobs=jobs,
                on_progress=lambda what, *now: seen.update({what: now}),  # noqa: B023
            )
        )
        assert [*seen] == ["picking", "comparing", "scoring"] and all(done == total for done, total in seen.values())
    one, other = issues
    assert one.picked == other.picked
    np.testing.assert_array_equal(one.logits, other.logits)


@pytest.mark.slow
def test_an_audit_on_a_local_ray_gives_the_same_bits(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'imae[ray]'")
    images, labels = load_digits(return_X_y=True)
    np.savez(tmp_path / "digits.npz", x=images, y=labels)
    data, logits = f"{tmp_path}/digits.npz:x", {}
    for name in ("", "ray"):
        audit(AuditOptions(data, tmp_path / f"out{name}", label="y", folds=2, seeds=2, jobs=2, engine=name))
        logits[name] = read_result(tmp_path / f"out{name}")[0].scores["logits"]
    assert joblib.effective_n_jobs(None) == 1
    np.testing.assert_array_equal(logits[""], logits["ray"])


def test_engines_that_are_none_or_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name, message in (
        ("spark", "--engine takes ray or ray:ADDRESS, not 'spark'"),
        ("ray", "--engine ray needs Ray: pip install 'imae[ray]'"),
    ):
        with pytest.raises(InputError) as error, engine(name):
            pass
        assert str(error.value) == message
