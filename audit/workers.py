"""Heads trained apart from one another, by joblib: in this process, in several, or on a cluster."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import joblib
import torch
from torch import Tensor

from imae.audit.features import Features
from imae.audit.heads import Heads, Setting, joined, train_heads
from imae.prototxt_like.errors import InputError

COLUMNS = 64
"""Logits of a sample from which on heads gain nothing by being trained side by side."""
Call = Callable[..., list[Heads]]
Progress = Callable[[int, int], None]


def train_apart(
    features: Features,
    labels: Tensor,
    classes: int,
    settings: Sequence[Setting],
    *,
    seeds: Sequence[int],
    iterations: int,
    counts: Tensor | None = None,
    hidden: int = 0,
    jobs: int | None = None,
    on_progress: Progress = lambda done, total: None,
) -> list[Heads]:
    """Return for each of `seeds` the heads that `train_heads` trains for `settings`, the same bits for any `jobs`.

    Seeds are trained apart, and so are heads of many classes. By `jobs` processes of as many threads as this one has;
    None: as `joblib.parallel_config` says, by whatever engine that names, else in this process.
    """
    size = max(1, COLUMNS // (hidden or classes))
    groups = [slice(first, first + size) for first in range(0, len(settings), size)]
    calls: list[Call] = [
        partial(
            train_heads,
            features,
            labels,
            classes,
            settings[group],
            counts=None if counts is None else counts[:, group],
            seed=seed,
            iterations=iterations,
            hidden=hidden,
        )
        for seed in seeds
        for group in groups
    ]
    if joblib.effective_n_jobs(jobs) == 1 or len(calls) == 1:
        found = [
            call(on_progress=_among(on_progress, number * iterations, len(calls) * iterations))
            for number, call in enumerate(calls)
        ]
    else:
        parallel = _Parallel(n_jobs=jobs, mmap_mode="c", batch_size=1)
        parallel.report = lambda done: on_progress(done, len(calls))
        threads = torch.get_num_threads()
        found = parallel(joblib.delayed(_with_threads)(threads, call) for call in calls)
    trained = [heads for (heads,) in found]
    return [joined(trained[first : first + len(groups)]) for first in range(0, len(trained), len(groups))]


def _among(on_progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: on_progress(before + done, total)


def _with_threads(threads: int, call: Call) -> list[Heads]:
    """What a call gives, in a worker; sums, and with them the last bits, may depend on the number of threads."""
    torch.set_num_threads(threads)
    return call()


class _Parallel(joblib.Parallel):  # type: ignore[misc]
    report: Callable[[int], None]

    def print_progress(self) -> None:
        self.report(self.n_completed_tasks)


@contextlib.contextmanager
def engine(name: str, jobs: int | None = None) -> Iterator[None]:
    """Have what is trained apart within be trained by an engine; "": by `jobs` processes of this machine.

    "ray", one that is started here, or "ray:ADDRESS", a cluster; `jobs` None: by all of its processors. Raises
    InputError for another name, and where Ray is not installed or not reached.
    """
    kind, _, address = name.partition(":")
    if not name:
        with joblib.parallel_config(n_jobs=jobs or 1):
            yield
        return
    if kind != "ray":
        raise InputError(f"--engine takes ray or ray:ADDRESS, not {name!r}")
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise InputError("--engine ray needs Ray: pip install 'imae[ray]'") from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    processors = None if address else jobs
    try:
        ray.init(address or "local", num_cpus=processors, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:
        raise InputError(f"--engine {name}: cannot be reached: {' '.join(str(error).split())}") from error
    register_ray()
    try:
        with joblib.parallel_config(backend="ray", n_jobs=jobs or -1):
            yield
    finally:
        ray.shutdown()
