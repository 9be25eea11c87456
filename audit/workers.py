"""Heads trained, and other work done, apart from one another, by joblib: here, in several processes, on a cluster."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import joblib
import torch
from torch import Tensor

from imae.audit.features import Features
from imae.audit.heads import Heads, Setting, joined, train_heads
from imae.nets.memory import keep_freed_memory
from imae.prototxt_like.errors import InputError

COLUMNS = 64
"""Logits of a sample from which on heads gain nothing by being trained side by side."""
Given = TypeVar("Given")
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
    stops: Sequence[float] = (1.0,),
    jobs: int | None = None,
    on_progress: Progress = lambda done, total: None,
) -> list[list[Heads]]:
    """Return for each of `seeds` what `train_heads` returns for `settings`, the same bits for any `jobs`.

    Seeds are trained apart, and so are heads of many classes, as `apart` does it.
    """
    total = len(settings)
    count = -(-total // max(1, COLUMNS // (hidden or classes)))
    groups = [slice(i * total // count, (i + 1) * total // count) for i in range(count)]
    calls = [
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
            stops=stops,
        )
        for seed in seeds
        for group in groups
    ]
    found = apart(calls, jobs=jobs, steps=iterations, on_progress=on_progress)
    by_seed = (found[first : first + count] for first in range(0, len(found), count))
    return [[joined(heads) for heads in zip(*trained, strict=True)] for trained in by_seed]


def apart(
    calls: Sequence[Callable[..., Given]],
    *,
    jobs: int | None = None,
    steps: int = 1,
    on_progress: Progress = lambda done, total: None,
) -> list[Given]:
    """Return what each of `calls` gives, in their order: by `jobs` processes of as many threads as this one has.

    `jobs` None: by the engine and the processes that `joblib.parallel_config` names, else by this process. In this one,
    each is called with an `on_progress` that it tells how many of its `steps` are done.
    """
    if joblib.effective_n_jobs(jobs) == 1 or len(calls) == 1:
        total = steps * len(calls)
        return [call(on_progress=_among(on_progress, i * steps, total)) for i, call in enumerate(calls)]
    parallel = _Parallel(n_jobs=jobs, mmap_mode="c", batch_size=1)
    parallel.report = lambda done: on_progress(done, len(calls))
    threads = torch.get_num_threads()
    found: list[Given] = parallel(joblib.delayed(_with_threads)(threads, call) for call in calls)
    return found


def _among(on_progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: on_progress(before + done, total)


def _with_threads(threads: int, call: Callable[[], Given]) -> Given:
    """What a call gives, in a worker; sums, and with them the last bits, may depend on the number of threads."""
    torch.set_num_threads(threads)
    keep_freed_memory()
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
