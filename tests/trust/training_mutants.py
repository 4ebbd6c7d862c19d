"""Damaged training files, one after the other: `python -m tests.trust.training_mutants FOLDER FIRST LAST`.

Each is looked at by a copy of this process, which has HDF5 already and does what `h5_child` does under its limits, and
is then read by this process if it was not refused. One line for each says how that went, so that whoever started this
knows by the last line which one it died of.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import h5py

from mmconvert.errors import InputRefused
from mmsimple.data import h5_child, h5_guard
from mmsimple.data.h5 import Files, read_layout, read_names
from tests.mmsimple.data.worked_example import A, B, C, file_of, write_with_h5py
from tests.trust.mutants_hdf5 import with_checksums
from tests.trust.mutations import hdf5_metadata, mutate_bytes

ROWS = [A, B, C, A, B]
# Of the processor, for each file; these have a few kB.
SECONDS = 2


def write_ours(path: Path) -> None:
    path.write_bytes(file_of(ROWS))


def write_others(path: Path) -> None:
    write_with_h5py(path, ROWS)


def write_newest(path: Path) -> None:
    """In the newest structures of HDF5, which have checksums, and all of it in chunks, of which there may be more."""
    with h5py.File(path, "w", libver="latest") as file:
        for name, values in (("data", [row.data for row in ROWS]), ("img_data_loc", [row.positions for row in ROWS])):
            file.create_dataset(name, data=values, dtype="i4", chunks=True, maxshape=(None, None, 16), compression=4)
        paths = [list(row.paths) for row in ROWS]
        file.create_dataset("img_path", data=paths, dtype=h5py.string_dtype(), chunks=(2, 1), compression="gzip")


BASES: tuple[Callable[[Path], None], ...] = (write_ours, write_others, write_newest)


def mutants(folder: Path, first: int, last: int) -> Iterator[tuple[int, bytes]]:
    """Those of these seeds."""
    bases = []
    for number, write in enumerate(BASES):
        path = folder / f"base-{number}.h5"
        write(path)
        bases.append((path.read_bytes(), hdf5_metadata(path)))
    for seed in range(first, last):
        draw = Random(seed)
        content, aims = bases[seed % len(bases)]
        mutant = mutate_bytes(content, draw, aims)
        # Nearly every damage would end at a checksum, and whoever means harm sets it right.
        yield seed, with_checksums(mutant, content) if draw.random() < 0.8 else mutant


def ask(paths: Sequence[Path], seconds: int) -> Iterator[str | None]:
    """As `h5_guard.ask`, of a copy of this process."""
    reading, writing = os.pipe()
    number = os.fork()
    if number == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as sys.stdout, contextlib.suppress(BaseException):
            sys.stdin = io.StringIO(json.dumps(list(map(str, paths))))
            h5_child.main(str(seconds))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        lines = answers.read().splitlines()
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    yield from map(json.loads, lines)
    if len(lines) < len(paths):
        yield h5_guard._died(status, paths[len(lines)], seconds)


def verdict(path: Path) -> str:
    """Refused by the guard, or by what reads after it, in a line that names the file; or read, all or in part."""
    try:
        h5_guard.check_files([path], seconds=SECONDS)
    except InputRefused as error:
        check_line(error, f"{path}: ")
        ends = {"crashed HDF5": "crashed the guard", "did not finish": "hung the guard"}
        return next((end for words, end in ends.items() if words in str(error)), "refused by the guard")
    try:
        count = read_layout(path)[1]
        list(read_names(path, range(count)))
    except InputRefused as error:
        check_line(error, f"{path}: ")
        return "refused"
    files = Files()
    bad = 0
    for number in range(count):
        try:
            files.read(path, number)
        except InputRefused as error:
            check_line(error, f"{path}: sample {number}: ")
            bad += 1
    return "read in part" if bad else "read"


def check_line(error: InputRefused, begin: str) -> None:
    if not str(error).startswith(begin) or "\n" in str(error):
        raise AssertionError(f"no line that begins with {begin!r}: {error}")


def main(folder: Path, first: int, last: int) -> None:
    h5_guard.ask = ask
    path = folder / "a.h5"
    for seed, mutant in mutants(folder, first, last):
        path.write_bytes(mutant)
        signal.setitimer(signal.ITIMER_PROF, 4 * SECONDS)
        print(seed, verdict(path), flush=True)
        path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
