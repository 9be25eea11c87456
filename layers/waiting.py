"""How the CPU's threads wait for each other and how many there are: chosen before torch loads its OpenMP.

By default OpenMP's threads spin for long while they wait for the slowest of them. On a machine with other work, that
takes processor time from the very threads that are waited for; to sleep at once costs an idle machine a fifth of its
speed. Spinning briefly, then sleeping, is as fast where it is idle and little slower beside other work; no result
changes. `python -m benchmarks.busy_machine` measures it.
"""

import contextlib
import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path

OF_THE_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # how OpenMP's threads wait; what is set stays
SPINS = "50000"  # GNU OpenMP's count of spins before a thread sleeps; its own is 300,000
SLICE = 100_000  # nanoseconds: with short slices a thread's share of a core is the same, but its turn comes sooner
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # the system call's number in Linux's unistd.h


def spin_briefly(environment: MutableMapping[str, str] = os.environ, *, loaded: bool | None = None) -> None:
    """Have OpenMP's threads soon sleep where they wait, and be no more than the cores that this process may use.

    Only before torch is `loaded`, and only where the environment does not say otherwise.
    """
    if "torch" in sys.modules if loaded is None else loaded:
        return
    if not any(name in environment for name in OF_THE_USER):
        environment["GOMP_SPINCOUNT"] = SPINS
    quota = quota_of_cores()
    if quota is not None and "OMP_NUM_THREADS" not in environment and quota < (os.cpu_count() or 1):
        environment["OMP_NUM_THREADS"] = str(quota)


def ask_for_short_slices() -> None:
    """Have this thread, and those that it starts, run in short slices of time, where Linux (6.12 and later) lets it.

    Threads that meet many times in an iteration then wait less for one that shares its core with other work.
    """
    number = _SCHED_SETATTR.get(platform.machine()) if sys.platform == "linux" else None
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = struct.pack("IIQiIQQQ", 48, os.SCHED_OTHER, 0, nice, 0, SLICE, 0, 0)  # sched_setattr(2)
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).syscall(number, 0, ctypes.create_string_buffer(attributes, len(attributes)), 0)


def quota_of_cores(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return how many cores' time a container's control group gives this process, rounded up; None without a limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()
        return max(1, -(-int(quota) // int(period)))
    with contextlib.suppress(OSError, ValueError):
        quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return max(1, -(-int(quota) // int(period))) if int(quota) > 0 else None
    return None


def describe_waiting(environment: MutableMapping[str, str] = os.environ) -> str:
    """Return in a few words how threads wait."""
    given = [f"{name}={environment[name]}" for name in OF_THE_USER if name in environment]
    if given == [f"GOMP_SPINCOUNT={SPINS}"]:
        return "waiting after brief spins"
    return f"waiting as {', '.join(given)} says" if given else "waiting as OpenMP does"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Have torch compute by one thread meanwhile: of sums the last bits depend on the number of threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
