"""Keeping freed memory, which a CPU's speed depends on (docs/performance.md), and no other.

glibc returns large freed blocks to the system at once. A U-Net allocates the same few hundred
megabytes for each tile, and would have every page of them mapped, zeroed and unmapped again.
"""

import ctypes
import os
import sys
import threading

from dask.utils import key_split

# Parameters of mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_POLITE = 15
"""Niceness: 0 is normal, 19 the lowest priority."""
_NEVER = 2**31 - 1
_GROW_BYTES = 64 * 2**20

ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(_NEVER),
    "MALLOC_TOP_PAD_": str(_GROW_BYTES),
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""The same for a process that is yet to start, and huge pages, which only it can have."""


def keep_freed_memory() -> None:
    """Tell this process's allocator to keep what is freed; does nothing where it is not glibc."""
    for parameter, value in (
        (_M_TRIM_THRESHOLD, _NEVER),
        (_M_TOP_PAD, _GROW_BYTES),
        (_M_MMAP_MAX, 0),
        (_M_ARENA_MAX, 1),
    ):
        _call_glibc("mallopt", parameter, value)


def return_free_memory() -> None:
    """Give free pages back to the system once; does nothing where the allocator is not glibc.

    Kept memory is cut up over time, and grows; now and then it has to start afresh.
    """
    _call_glibc("malloc_trim", 0)


def forget_keys() -> None:
    """Let go of the last 100 000 keys that dask split: memory would grow with the image."""
    key_split.cache_clear()


def yield_to_inference() -> None:
    """Let this thread run when the network's threads leave it a core.

    A thread that reads or writes would otherwise stop one of them, and with it, at the end of
    each layer, all. Costs one system call; does nothing where threads have no priority.
    """
    if sys.platform.startswith("linux"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _POLITE)


def _call_glibc(name: str, *arguments: int) -> None:
    if sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), name):
        getattr(ctypes.CDLL(None), name)(*arguments)
