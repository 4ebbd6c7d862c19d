"""A source is never written to, and one that others write to while it is read is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from mmconvert.errors import InputRefused
from mmconvert.sources import FILES
from tests.trust.amounts import amount
from tests.trust.conftest import MakeConversion, Tell
from tests.trust.conversions import FORMATS, Conversion, state_of

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture(params=FORMATS[: amount(2, len(FORMATS))])
def small(request: pytest.FixtureRequest, tmp_path: Path, make_conversion: MakeConversion) -> Conversion:
    return make_conversion(request.param, tmp_path)


def traces(folder: Path) -> dict[str, tuple[int, ...]]:
    """What tells that anything was written, renamed or given another mode below a folder, which is among them."""
    found: dict[str, tuple[int, ...]] = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return found


def test_what_only_reads_leaves_no_trace_in_what_may_only_be_read(
    small: Conversion, mmconvert: Run, tmp_path: Path
) -> None:
    source = small.plan.sources[0]
    below = sorted([source, *source.rglob("*")], reverse=True)
    for path in below:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        before = traces(source)
        target = small.plan.facts["target"]["format"]
        assert mmconvert("convert", "--src", source, "--to", target, "--out", tmp_path / "out").returncode == 0
        for command in (
            ("verify", source, tmp_path / "out"),
            ("inspect", source, "--scan"),
            ("doctor", source),
            ("diff", source, source),
            ("plan", "--src", source, "--to", target),
        ):
            done = mmconvert(*command)
            assert done.returncode in (0, 6), done.stderr
        assert traces(source) == before
    finally:
        for path in reversed(below):
            path.chmod(0o755 if path.is_dir() else 0o644)


def overwrite(path: Path) -> None:
    """Another byte, in the place of one, and times as they were."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    """Another file of the same size and times under the same name."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    overwrite(other)
    os.replace(other, path)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


CHANGES: dict[str, Callable[[Path], None]] = {
    "overwritten": overwrite,
    "replaced": replace,
    "grown": grow,
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_that_changes_while_it_is_read_is_refused(small: Conversion, change: str, tell: Tell) -> None:
    class Meddler:
        """Somebody else, who changes a file when so many bytes are done."""

        def __init__(self, path: Path, at: int) -> None:
            self.path, self.left = path, at

        def start(self, total_bytes: int) -> None: ...
        def finish(self) -> None: ...
        def advance(self, nbytes: int) -> None:
            if self.left >= 0 > self.left - nbytes:
                CHANGES[change](self.path)
            self.left -= nbytes

    kept = small.folder / "kept"
    total = sum(tensor.nbytes for tensor in small.plan.tensors)
    done = 0
    for file in small.plan.files:
        for part in (0, 1, 2):
            shutil.copytree(file.parent, kept)
            small.begin_anew(with_old=True)
            fresh = small.planned_anew()
            with pytest.raises(InputRefused, match=r"changed while|cannot be read|ends at byte"):
                fresh.run(overwrite=True, progress=Meddler(file, min(part * total // 2, total - 1)))
            assert state_of(small.out) == small.old
            assert small.beside == ["out"]
            FILES.close()
            shutil.rmtree(file.parent)
            kept.rename(file.parent)
            done += 1
    tell("sources changed while they were read, each refused", done)
