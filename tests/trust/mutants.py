"""Mutants of each kind, made and read one after the other: `python -m tests.trust.mutants KIND FIRST COUNT BASE PLACE`.

A process of its own does it, so that a crash is seen as one, and it may take so much memory and no more. It says on
stdout, a line of JSON each, which seed it begins with and what came of it. `mutant` makes that of one seed again.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import FrameType

from tests.trust.mutants_kinds import KINDS

# Seconds of processor time for one mutant, bytes of address space, and by how many kilobytes all of them may grow us.
CPU_LIMIT = 5.0
MEMORY_LIMIT = 4 << 30
GROWTH_LIMIT = 200 << 10
# More than so many failures are told by these, and each may take long.
MOST_FAILURES = 3


class Hang(BaseException):
    """One mutant took more than `CPU_LIMIT`."""


def mutant(kind: str, seed: int, folder: Path | None = None) -> tuple[str, bytes]:
    """The file that the mutant of a seed stands in for, and its bytes; `folder` holds the intact checkpoint."""
    if folder is None:
        with TemporaryDirectory() as place:
            KINDS[kind].make(Path(place, "base"))
            return mutant(kind, seed, Path(place, "base"))
    draw = Random(f"{kind} {seed}")
    name = draw.choice(list(KINDS[kind].damage))
    return name, KINDS[kind].damage[name]((folder / name).read_bytes(), draw)


@contextmanager
def _watched() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def attempt(kind: str, seed: int, base: Path, place: Path) -> str:
    """Have the mutant of a seed read in a copy of the intact checkpoint `base`, and say what came of it."""
    name, data = mutant(kind, seed, base)
    folder, out = place / "folder", place / "out"
    if not folder.exists():
        shutil.copytree(base, folder)
    (folder / name).write_bytes(data)
    try:
        with _watched():
            return KINDS[kind].use(KINDS[kind], folder, name, out, seed)
    finally:
        shutil.copyfile(base / name, folder / name)
        shutil.rmtree(out, ignore_errors=True)


def _seconds() -> float:
    """Of processor time, that of the processes that were started and have ended included."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main(kind: str, first: str, count: str, base: str, place: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, resource.getrlimit(resource.RLIMIT_AS)[1]))
    # What an intact one takes is no growth.
    with TemporaryDirectory() as folder, _watched():
        whole, name = Path(folder, "whole"), next(iter(KINDS[kind].damage))
        shutil.copytree(base, whole)
        intact = KINDS[kind].use(KINDS[kind], whole, name, Path(folder, "out"), 0)
    say(intact=intact)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    failed = 0
    for seed in range(int(first), int(first) + int(count)):
        say(seed=seed)
        try:
            began = _seconds()
            say(came=attempt(kind, seed, Path(base), Path(place)), seconds=round(_seconds() - began, 2))
        except (Exception, Hang):
            say(failed=traceback.format_exc())
            failed += 1
            if failed == MOST_FAILURES:
                break
    say(growth=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
