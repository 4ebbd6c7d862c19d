"""What processes have in common that open HDF5 files of strangers: where they find this package, what they may take.

Such a file may crash HDF5, hang it, or have it take all memory: see `mdl_child` and `mmsimple.data.h5_child`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

# Seconds of processor time: what a small file may take, what each byte of a larger one adds, and the most.
CPU_LIMIT, CPU_SHARE, MOST_CPU = 3, 1 / (25 << 20), 120
# On a disk that answers slowly a process waits so many times as long as it may compute.
WAITING = 20
# What to say where memory was refused.
TOO_MUCH_MEMORY = "takes more memory to read than any sound file of its size; is it damaged?"


def cpu_limit(size: int) -> int:
    """The seconds of processor time that a file of `size` bytes may take."""
    return min(CPU_LIMIT + int(size * CPU_SHARE), MOST_CPU)


def environment() -> dict[str, str]:
    """The environment to start such a process in."""
    return os.environ | {
        # It finds this package as this process does, and nothing in the folder where the user happens to stand.
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        # numpy would reserve address space for each of many processors, and the limit of it is tight.
        "OPENBLAS_NUM_THREADS": "1",
    }


def limit_cpu(seconds: int) -> None:
    """Have the system end this process when it has computed for so many seconds in all, those until now included."""
    _set(resource.RLIMIT_CPU, seconds)


def limit_memory(room: int) -> None:
    """Have the system refuse this process more than so many bytes of address space beside what it has now.

    Linux alone tells how much that is, and it alone heeds this limit.
    """
    with contextlib.suppress(OSError):
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _set(resource.RLIMIT_AS, taken + room)


def _set(limit: int, wanted: int) -> None:
    """Set a limit; the hard one stays what it is, above which an ordinary user cannot go."""
    hard = resource.getrlimit(limit)[1]
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    # Not every system has every limit.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(limit, (soft, hard))
