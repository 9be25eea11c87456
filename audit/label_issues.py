"""Which labels are wrong: heads trained on the labels at hand, and what they make of each label."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from imae.audit.data_sets import is_data_set
from imae.audit.features import Features, check_labels
from imae.audit.heads import LOSSES, Heads, Setting, all_logits, enough_iterations, joined
from imae.audit.near_duplicates import merged_classes, undecided_classes
from imae.audit.noise_model import ENTRIES, MANY, Interval, bootstrap, fit_noise_model
from imae.audit.workers import apart, train_apart
from imae.layers.waiting import one_thread
from imae.prototxt_like.errors import InputError

GRID = {"IMAE": (2.0, 4.0, 8.0, 16.0), "GCE": (0.3, 0.5, 0.7, 0.9), "CCE": (0.0,), "MAE": (0.0,)}
"""T of IMAE and q of GCE that are tried."""
RATES = {"IMAE": (0.003, 0.01), "GCE": (0.01, 0.03), "CCE": (0.003, 0.01), "MAE": (0.1, 0.3)}
"""Learning rates that are tried, of up to `WIDE` features: of more, they are as much smaller."""
WIDE = 512
STOPS = (0.25, 0.5, 1.0)
"""After which part of the iterations a training may stop."""
HELD_OUT = 5
"""One sample in so many is held out to pick by."""
PICKED_ON = 10_000
"""Samples at most that the settings are picked on."""
ITERATIONS = 400
"""Of each training, at least."""
GAP = 0.02
"""What part more of the labels a head may predict where it was trained than where not, to be taken at its word there:
as measured, and two deviations. Of 10,000 samples a fifth more labels than are wrong were expected to be otherwise."""
FOLDS = 5
"""In which the samples are scored, each by a head that was trained on the others, where it is not."""
PARTED_TWICE = 20_000
"""Samples up to which they are parted into folds twice, at random, and scored by the mean of both."""
DOUBTFUL, UNCLEAR = 2 / 3, 0.8
"""Of a head that finds less than this part of the true classes, many suspects are hard samples: less than the second,
where a class has another label about as often as its own."""
MOST_UNCLEAR = 1 / 3
"""The part of the classes of which that may be so, whatever the head finds."""

Numbers = NDArray[np.float64]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Picked:
    """What was picked on the part of the noisy labels that was held out."""

    loss: str
    parameter: float | None
    """T of IMAE, q of GCE."""
    rate: float
    """The learning rate."""
    iterations: int
    folds: int
    """0: scored by heads that were trained on all samples."""
    seeds: int
    accuracy_trained: float
    """How many noisy labels the picked head predicts, as a fraction: where it was trained,"""
    accuracy_held_out: float
    """and where not."""
    tried: list[dict[str, float]]
    """The settings that were compared, each with the mean log-probability of the labels held out."""


@dataclass(frozen=True)
class LabelIssues:
    """What was found about N labels of C classes; arrays are in the order of the samples."""

    label: NDArray[np.int64]
    """The class of each sample's label."""
    classes: list[str]
    """What the classes are called."""
    score: Numbers
    """The larger, the more suspicious: what to sort by."""
    p_wrong: Numbers
    """The probability that the label is wrong; rises with `score`."""
    suggested: NDArray[np.int64]
    """The most probable class other than the label."""
    p_suggested: Numbers
    """The probability that this is the true class."""
    is_issue: NDArray[np.bool_]
    """Whether the label is among those to look at: so many that the expected F1 of wrong labels found is largest."""
    noise_rate: Interval
    """Which part of all labels is wrong."""
    transition: Interval
    """How often samples of each true class (row) have each label (column)."""
    picked: Picked
    logits: NDArray[np.float32]
    """N x C, the mean over the seeds."""
    heads: Heads | None = None
    """Trained on all samples, one for each seed."""
    features: Features | None = None
    frame: Any = None
    """label, score, p_wrong, suggested, p_suggested and is_issue as a pandas DataFrame, where pandas is installed."""

    @property
    def order(self) -> NDArray[np.int64]:
        """The samples, the most suspicious first."""
        return np.argsort(-self.score, kind="stable")

    @property
    def doubt(self) -> str:
        """A sentence where the head is too poor to tell wrong labels from hard samples, else "".

        A head predicts about so large a part of the right labels as it finds true classes, and few of the wrong ones.
        """
        accuracy, right = self.picked.accuracy_held_out, 1 - float(self.noise_rate.value)
        usual = float(np.bincount(self.label).max()) / len(self.label)
        said = f"The head predicts {100 * accuracy:.0f} % of the labels held out, where "
        if accuracy <= usual + _chance(usual, len(self.label)):
            return f"{said}the most frequent label is {100 * usual:.0f} % of all: nothing found here can be trusted"
        if accuracy < DOUBTFUL * right:
            return (
                f"{said}{100 * right:.0f} % are taken for right: many suspects may be hard samples, and p_wrong is "
                "too sure. Better features tell more"
            )
        unclear = {pair[0] for pair in undecided_classes(self.transition.value)}
        unclear.update(one for pair in merged_classes(self.transition.value) for one in pair[:2])
        if len(unclear) > (0 if accuracy < UNCLEAR * right else MOST_UNCLEAR * len(self.classes)):
            return (
                f"Of {len(unclear)} of {len(self.classes)} classes another label seems about as usual as their own. "
                "Where features tell classes apart badly it seems so, too, and p_wrong is too sure"
            )
        return ""

    def expected_wrong(self, n: int) -> float:
        """Return how many of the `n` most suspicious labels are expected to be wrong."""
        return float(self.p_wrong[self.order[:n]].sum())


def find_label_issues(
    features: ArrayLike | Features | Any,
    labels: ArrayLike | str | None = None,
    *,
    backbone: str = "",
    budget: float = 10.0,
    loss: str = "IMAE",
    parameter: float | None = None,
    hidden: int = 0,
    folds: int | None = None,
    seeds: int = 1,
    seed: int = 0,
    jobs: int | None = None,
    device: str = "cpu",
    on_progress: Progress = lambda what, done, total: None,
) -> LabelIssues:
    """Find the labels that are wrong.

    features: N x D numbers (NumPy, PyTorch, pandas, a map of a file), or a data set of features or images as
    `read_data_set` takes it; labels: N classes, of any integers or texts, left out where a data set has its own. Images
    go through a `backbone` as `open_backbone` takes it, else a net is trained on them, for `budget` minutes at most;
    both on `device`, one of PyTorch's. A head, one fully connected layer, or two with `hidden` values in between, is
    trained on the features by `loss`, "IMAE", "GCE", "CCE" or "MAE". T or q is `parameter`, else picked, as are the
    learning rate and stopping, by the labels of samples held out; no label needs to be right for that.
    `folds`: in so many parts, each scored by heads trained on the others; 0, by heads trained on all; None: by how
    much better the head predicts labels that it was trained on. Scores are means over `seeds` trainings;
    `jobs` processes share all trainings, or an engine that `joblib.parallel_config` names.

    Raises InputError for features and labels that do not fit, or settings out of range.
    """
    _check(loss, parameter, hidden, seeds)
    if labels is None or isinstance(labels, str) or is_data_set(features):
        from imae.audit.features_of_images import features_of_data_set

        options: dict[str, Any] = {"loss": loss, "parameter": parameter, "seed": seed, "on_progress": on_progress}
        with tempfile.TemporaryDirectory() as folder:  # for features that are more than memory holds
            samples = features_of_data_set(
                features, labels, Path(folder), backbone=backbone, budget=budget, device=device, **options
            )
            found = find_label_issues(
                samples.features, samples.label, hidden=hidden, folds=folds, seeds=seeds, jobs=jobs, **options
            )
        found = replace(found, classes=samples.classes)
        return replace(found, frame=_frame(found))
    if backbone:
        raise InputError("backbone is for data sets of images; these are features")
    if not isinstance(features, Features):
        features = Features(_array("features", features))
    given, classes = check_labels(_array("labels", labels), len(features))
    _check_folds(folds, len(given))
    if 2 * len(classes) > len(given):
        raise InputError(f"{len(given)} labels are of {len(classes)} classes: expected some samples of each")
    task = _Task(features, torch.from_numpy(given), len(classes), hidden, seed, jobs, on_progress)
    setting, stop, tried, gap = _pick(task, loss, parameter)
    if folds is None:
        # What is learnt by heart is measured on some of the samples, and shrinks as they outnumber the weights.
        trained, held_out = gap
        most = (trained - held_out + _chance(held_out, len(given))) * min(PICKED_ON, len(given)) / len(given)
        folds = FOLDS if most > GAP or len(classes) > MANY else 0
    iterations = max(1, round(stop * enough_iterations(ITERATIONS, len(given))))
    heads, logits = _score(task, setting, iterations, folds, seeds)
    picked = Picked(
        loss,
        setting.parameter if loss in ("IMAE", "GCE") else None,
        setting.rate,
        iterations,
        folds,
        seeds,
        *gap,
        tried,
    )
    return judge(logits, task.labels, classes, picked, heads, features, seed=seed)


def judge(
    logits: Tensor,
    target: Tensor,
    classes: list[str],
    picked: Picked,
    heads: Heads | None = None,
    features: Features | None = None,
    *,
    seed: int = 0,
) -> LabelIssues:
    """Return what the logits (N x C) of a net say about the labels (N) by the noise model.

    Beside the logits, memory holds some numbers of each sample.
    """
    model = fit_noise_model(logits, target, mixed=True, seed=seed)
    total, wrong, most = torch.empty(3, len(target), dtype=torch.float64)
    suggested = torch.empty_like(target)
    for rows in torch.split(torch.arange(len(target)), max(1, ENTRIES // logits.shape[1])):
        true = model.posterior(logits[rows], target[rows]).double()
        total[rows] = true.sum(1)
        others = true.scatter_(1, target[rows, None], 0.0)
        wrong[rows] = others.sum(1)
        most[rows], suggested[rows] = others.max(1)
    wrong.clamp_min_(1e-12)
    score = (wrong.log() - (total - wrong).clamp_min(1e-12).log()).numpy()
    p_wrong = 1 / (1 + np.exp(-score))
    rate, transition = bootstrap(model, logits, target, float(p_wrong.mean()), seed=seed)
    found = LabelIssues(
        label=target.numpy(),
        classes=classes,
        score=score,
        p_wrong=p_wrong,
        suggested=suggested.numpy(),
        p_suggested=(most / wrong).numpy() * p_wrong,
        is_issue=_best_f1(score, p_wrong),
        noise_rate=rate,
        transition=transition,
        picked=picked,
        logits=logits.numpy(),
        heads=heads,
        features=features,
    )
    return replace(found, frame=_frame(found))


def _check(loss: str, parameter: float | None, hidden: int, seeds: int) -> None:
    if loss not in LOSSES:
        raise InputError(f"loss must be one of {', '.join(LOSSES)}, not {loss!r}")
    if parameter is not None and loss not in ("IMAE", "GCE"):
        raise InputError(f"{loss} has no parameter: T is IMAE's, q is GCE's")
    if parameter is not None and not (0 < parameter <= 1 if loss == "GCE" else 0 <= parameter <= 64):
        raise InputError(f"{'q must lie in (0, 1]' if loss == 'GCE' else 'T must lie in [0, 64]'}, not {parameter:g}")
    if hidden < 0 or seeds < 1:
        raise InputError(f"hidden must be at least 0 and seeds at least 1, not {hidden} and {seeds}")


def _chance(part: float, samples: int) -> float:
    """Two deviations of a part of the labels as measured on those that are held out of so many samples."""
    deviation: float = (part * (1 - part) * HELD_OUT / min(PICKED_ON, samples)) ** 0.5
    return 2 * deviation


def _check_folds(folds: int | None, samples: int) -> None:
    if samples < 20:
        raise InputError(f"{samples} samples: expected at least 20 to learn from")
    if folds is not None and (folds < 0 or folds == 1 or folds > samples // 4):
        raise InputError(f"folds must be 0, or 2 to {samples // 4}, a quarter of the samples, not {folds}")


def _array(name: str, values: Any) -> NDArray[Any]:
    """The values as an array; a table or list whose columns are numbers of several types as float64."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    try:
        array = np.asarray(values)
        if array.dtype == object and name == "features":
            array = array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: expected numbers, a row for each sample: {error}") from error
    return array


@dataclass(frozen=True)
class _Task:
    """What the trainings that are compared and those that score have in common."""

    features: Features
    labels: Tensor
    classes: int
    hidden: int
    seed: int
    jobs: int | None
    on_progress: Progress


def _pick(
    task: _Task, loss: str, parameter: float | None
) -> tuple[Setting, float, list[dict[str, float]], tuple[float, float]]:
    """The setting and stop under which labels held out are most probable, all that were tried, and two accuracies."""
    generator = torch.Generator().manual_seed(task.seed)
    chosen = torch.randperm(len(task.labels), generator=generator)[:PICKED_ON].sort().values
    part, given = task.features.subset(chosen), task.labels[chosen]
    held = torch.randperm(len(given), generator=generator) % HELD_OUT == 0
    grid = GRID[loss] if task.classes <= MANY else GRID[loss][::2]  # a training's time grows with the classes
    values = grid if parameter is None else (parameter,)
    narrow = min(1.0, WIDE / part.width)
    settings = [Setting(loss, value, rate * narrow) for value in values for rate in RATES[loss]]
    (stopped,) = train_apart(
        part,
        given,
        task.classes,
        settings,
        seeds=[task.seed],
        iterations=enough_iterations(ITERATIONS, len(given)),
        stops=STOPS,
        counts=(~held)[:, None].expand(-1, len(settings)),
        hidden=task.hidden,
        jobs=task.jobs,
        on_progress=lambda done, total: task.on_progress("picking", done, total),
    )
    out = part.subset(held.nonzero()[:, 0])
    logits = [z.t() for heads in stopped for z in all_logits(heads, out)]
    fits = apart(
        [partial(_fit, z.clone(), given[held]) for z in logits],
        jobs=task.jobs,
        on_progress=lambda done, total: task.on_progress("comparing", done, total),
    )
    each = [(j, i) for j in range(len(STOPS)) for i in range(len(settings))]
    tried = [
        {"parameter": settings[i].parameter, "rate": settings[i].rate, "stop": STOPS[j], "fit": fit}
        for (j, i), fit in zip(each, fits, strict=True)
    ]
    _, i, j = min((-fit, i, j) for (j, i), fit in zip(each, fits, strict=True))
    right = (all_logits(stopped[j].take([i]), part)[0].argmax(0) == given).double()
    return settings[i], STOPS[j], tried, (float(right[~held].mean()), float(right[held].mean()))


@one_thread()
def _fit(logits: Tensor, labels: Tensor, on_progress: Callable[[int, int], None] = lambda done, total: None) -> float:
    """The mean log-probability of labels that the heads were not trained on."""
    found = fit_noise_model(logits, labels, iterations=10).log_likelihood(logits, labels)
    on_progress(1, 1)
    return found


def _score(task: _Task, setting: Setting, iterations: int, folds: int, seeds: int) -> tuple[Heads, Tensor]:
    """Heads trained on all samples, one a seed, and the logits that score (N x C), their mean."""
    count, first = len(task.labels), task.seed + 1
    draws = torch.Generator().manual_seed(task.seed)
    times = 2 if folds and count <= PARTED_TWICE else 1
    # By which heads each sample is scored: of each parting the one that is not trained on its fold, or the only one.
    scorers = torch.stack([torch.randperm(count, generator=draws) % max(folds, 1) + folds * i for i in range(times)])
    last = folds * times
    counts = torch.ones(count, last + 1, dtype=torch.bool).scatter_(1, scorers.t(), False) if folds else None
    whole, sums = [], torch.zeros(count, task.classes)
    for (heads,) in train_apart(
        task.features,
        task.labels,
        task.classes,
        [setting] * (last + 1),
        seeds=range(first, first + seeds),
        iterations=iterations,
        counts=counts,
        hidden=task.hidden,
        jobs=task.jobs,
        on_progress=lambda done, total: task.on_progress("scoring", done, total),
    ):
        whole.append(heads.take([last]))
        for rows in torch.split(torch.arange(count), 8192):
            logits = heads.logits(task.features.rows(rows))
            for scorer in scorers[:, rows]:
                sums[rows] += logits[scorer, :, torch.arange(len(rows))] / (seeds * len(scorers))
    if not all(torch.isfinite(rows).all() for rows in torch.split(sums, 8192)):
        raise InputError(f"the training with {setting} diverged; give another parameter or loss")
    return joined(whole), sums


def _best_f1(score: Numbers, p_wrong: Numbers) -> NDArray[np.bool_]:
    """The most suspicious samples, as many as give the largest expected F1, 2 found / (flagged + wrong).

    None where among those not one wrong label is expected, to the nearest whole number.
    """
    order = np.argsort(-score, kind="stable")
    found = np.cumsum(p_wrong[order])
    most = int((found / (np.arange(1, len(order) + 1) + found[-1])).argmax())
    flagged = np.zeros(len(order), np.bool_)
    flagged[order[: most + 1]] = found[most] > 0.5
    return flagged


def _frame(found: LabelIssues) -> Any:
    """A DataFrame of the columns, with the classes' names; None without pandas."""
    try:
        import pandas
    except ImportError:
        return None
    names = np.array(found.classes, dtype=object)
    columns = {"label": names[found.label], "score": found.score, "p_wrong": found.p_wrong}
    columns |= {"suggested": names[found.suggested], "p_suggested": found.p_suggested, "is_issue": found.is_issue}
    return pandas.DataFrame(columns)
