"""Training files are opened by a process of their own first (`h5_child`), so that one that crashes or hangs HDF5 is
refused by name, and is never opened by the process that trains.

It takes a fifth of a second to start, once for all files, and then some milliseconds for each file of 2,000 samples. A
file that has been looked at is not looked at again until it has changed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from mmconvert.containers.hdf5_process import MOST_CPU, WAITING, cpu_limit, environment
from mmconvert.documents import file_size
from mmconvert.errors import InputRefused
from mmconvert.excerpt import printable
from mmconvert.sources import Stamp, stamp

CHILD = ("-P", "-m", "mmsimple.data.h5_child")
LINE_LIMIT = 1 << 16

# A file as it was when it was looked at.
Seen: TypeAlias = tuple[str, Stamp]
# What has been found to be readable.
_known: set[Seen] = set()


def check_files(paths: Iterable[Path], *, seconds: int = MOST_CPU) -> None:
    """Raise InputRefused, naming it, for a file that cannot safely be read, or takes too long.

    That is longer than its size explains, or than so many seconds of the processor.
    """
    stamps = {path: _seen(path) for path in paths}
    new = [path for path, stamp in stamps.items() if stamp not in _known]
    for path, said in zip(new, ask(new, seconds) if new else (), strict=True):
        if said is not None:
            raise InputRefused(f"{path}: {_one_line(said)}")
        _known.add(stamps[path])


def ask(paths: Sequence[Path], seconds: int) -> Iterator[str | None]:
    """What another process says of each file: why it is refused, or None."""
    with subprocess.Popen(
        [sys.executable, *CHILD, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as child:
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            with suppress(BrokenPipeError):  # it has died already, which shows below
                child.stdin.write(json.dumps([os.path.abspath(path) for path in paths]).encode())
                child.stdin.close()
            for path in paths:
                line = child.stdout.readline(LINE_LIMIT)
                if not line.endswith(b"\n"):
                    yield _died(child.wait(), path, seconds)
                    return
                said: str | None = json.loads(line)
                yield said
        finally:
            child.kill()


def _seen(path: Path) -> Seen:
    """What tells a file from one that has been changed or put in its place."""
    file_size(path)  # a pipe would never answer
    return os.path.abspath(path), stamp(path)


def _died(status: int, path: Path, seconds: int) -> str:
    if -status in (signal.SIGXCPU, signal.SIGALRM):
        busy = min(seconds, cpu_limit(path.stat().st_size))
        within = f"{busy} seconds of processor time" if -status == signal.SIGXCPU else f"{WAITING * busy} seconds"
        return f"HDF5 did not finish reading it within {within}; is it damaged?"
    return f"is damaged: it crashed HDF5 (status {status})"


def _one_line(said: str) -> str:
    return printable(said.partition("\n")[0][:300])
