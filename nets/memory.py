"""How this process keeps memory between iterations."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let the C library keep large freed blocks for the next iteration instead of returning them to the system.

    Each iteration frees and allocates the same activations; without this every one is mapped and zeroed again, page by
    page. All threads share one arena: in one of its own, a thread that prepares batches would keep no large block. Only
    glibc has the settings; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
