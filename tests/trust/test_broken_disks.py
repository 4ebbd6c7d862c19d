"""A disk that fails at any call that writes, or is full, ends a conversion with exit 7, and has done no harm."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from mmconvert.errors import DiskError
from mmconvert.sources import FileSpan
from tests.conftest import Make
from tests.trust.amounts import amount
from tests.trust.conftest import MakeConversion, Tell
from tests.trust.conversions import FORMATS, Conversion, state_of
from tests.trust.faults import failing

Run = Callable[..., CompletedProcess[str]]
ERRORS = {errno.ENOSPC: "No space left on device", errno.EIO: "Input/output error"}
AMOUNTS = re.compile(r"\d (B|kB|MB|GB) needed, [\d.]+ (B|kB|MB|GB|TB|PB) free$")


# Of all formats by `make trust`; of one that may go on every time.
@pytest.fixture(scope="module", params=FORMATS[amount(1, 0) : amount(2, len(FORMATS))])
def small(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_conversion: MakeConversion
) -> Conversion:
    return make_conversion(request.param, tmp_path_factory.mktemp("disks"))


def error_of(work: Callable[[], object]) -> Exception | None:
    try:
        work()
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("with_old", [False, True], ids=["nothing there", "overwriting"])
@pytest.mark.parametrize("number", ERRORS, ids=["ENOSPC", "EIO"])
def test_wherever_it_fails_the_target_is_what_it_was(
    small: Conversion, with_old: bool, number: int, tell: Tell
) -> None:
    for at in count():
        small.begin_anew(with_old=with_old)
        with failing(number, at, lasts=number == errno.ENOSPC) as disk:
            error = error_of(lambda: small.run(overwrite=with_old))
        if len(disk.calls) <= at:
            break
        assert isinstance(error, DiskError), disk.calls[at]
        assert ERRORS[number] in str(error)
        assert AMOUNTS.search(str(error)), error
        found = state_of(small.out)
        if found == small.new:
            # It has taken its place, and only whether that will last is not known.
            assert disk.calls[at:] == ["fsync"]
        else:
            assert found == (small.old if with_old else None)
        left = set(small.beside) - {"out"}
        assert left <= ({".out.mmconvert-staging"} if small.resume else set()), left
    assert error is None
    assert state_of(small.out) == small.new
    assert small.beside == ["out"]
    tell("calls that write at which the disk failed, each with exit 7 and no harm done", at)


def test_one_that_goes_on_after_it_writes_the_rest(small: Conversion) -> None:
    if not small.resume:
        pytest.skip("one file, or none that is finished before the others")
    small.begin_anew(with_old=False)
    kept: list[str] = []
    for at in count(0, 9):
        with failing(errno.ENOSPC, at, lasts=True):
            error = error_of(lambda: small.run(on_resume=kept.extend))
        if error is None:
            break
    assert kept
    assert state_of(small.out) == small.new


def test_the_command_says_what_failed_and_exits_7(mmconvert: Run, llama: Path, tmp_path: Path) -> None:
    for at in (1, 5, 12):
        with failing(errno.ENOSPC, at):
            done = mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "out")
        assert done.returncode == 7
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {tmp_path}")
        assert AMOUNTS.search(line)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_what_relocate_writes_may_fail_too(
    mmconvert: Run, make_llava: Make, number: int, tmp_path: Path, tell: Tell
) -> None:
    made = make_llava(tmp_path / "made")
    assert mmconvert("cs-to-llava", "--src", _cs(mmconvert, made), "--out", tmp_path / "llava").returncode == 0
    for at in count():
        moved = shutil.copytree(tmp_path / "llava", tmp_path / f"moved-{at}")
        with failing(number, at) as disk:
            done = mmconvert("relocate", moved)
        if len(disk.calls) <= at:
            assert done.returncode == 0
            break
        assert done.returncode == 7, done
        assert mmconvert("verify", moved).returncode == 0
        assert mmconvert("relocate", moved).returncode == 0
        assert mmconvert("verify", moved).returncode == 0
    assert at
    tell("calls that write of relocate at which the disk failed, with the same result", at)


def _cs(mmconvert: Run, source: Path) -> Path:
    out = source.with_name("cs")
    assert mmconvert("llava-to-cs", "--src", source, "--out", out).returncode == 0
    return out


# --- a disk that is really full -----------------------------------------------------------------------------------

# Runs as its own root in a mount namespace of its own; the free room is not believed, so that writes have to fail.
FILL = """
import subprocess, sys
from itertools import count
from pathlib import Path
import mmconvert
from mmconvert import staging
from mmconvert.errors import DiskError
source, disk = sys.argv[1:]
staging.check_room = lambda folder, needed: None
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", disk], check=True)
failed = 0
for pages in range(2, 200):
    subprocess.run(["mount", "-o", f"remount,size={pages * 4}k", "none", disk], check=True)
    try:
        mmconvert.convert(source, f"{disk}/out", "cs", )
    except DiskError as error:
        assert "No space left on device" in str(error), error
        assert not list(Path(disk).iterdir()), list(Path(disk).iterdir())
        failed += 1
    else:
        break
assert not mmconvert.verify(f"{disk}/out").problems
print(failed)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a mount namespace")
def test_a_disk_of_any_size_that_is_too_small_is_left_empty(make_clip: Make, tmp_path: Path, tell: Tell) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no user may mount here")
    source = make_clip(tmp_path / "clip", hidden_size=16, intermediate_size=16, num_hidden_layers=1)
    (tmp_path / "disk").mkdir()
    command = [unshare, "-rm", sys.executable, "-c", FILL, str(source), str(tmp_path / "disk")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
    tell("disks that were full, each left empty", int(done.stdout))


# --- reading --------------------------------------------------------------------------------------------------------


def test_a_source_that_cannot_be_read_is_left_out_of_nothing(
    small: Conversion, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, preadv = 0, os.preadv

    def read(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        nonlocal left
        left -= 1
        if left == -1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return preadv(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", read)
    monkeypatch.setattr(FileSpan, "copy_to", lambda *arguments: False)
    for at in range(0, 20, 3):
        small.begin_anew(with_old=True)
        left = at
        error = error_of(lambda: small.run(overwrite=True))
        assert isinstance(error, DiskError)
        assert "cannot be read at byte" in str(error)
        assert (small.folder / "source") in Path(str(error).partition(":")[0]).parents or "cs" in str(error)
        assert state_of(small.out) == small.old
