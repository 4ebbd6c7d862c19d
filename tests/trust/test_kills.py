"""A conversion that is killed leaves its target absent, as it was, or complete; and the next run makes all good."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mmconvert.errors import OutputRefused
from mmconvert.sources import FILES
from tests.trust.amounts import amount
from tests.trust.conftest import MakeConversion, Tell
from tests.trust.conversions import FORMATS, Conversion, state_of
from tests.trust.faults import failing, killing

# Of each format with and without something at the target; 100 and 500 in all.
KILLS = amount(13, 63)
SEED = 8


@pytest.fixture(scope="module", params=FORMATS)
def small(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_conversion: MakeConversion
) -> Conversion:
    return make_conversion(request.param, tmp_path_factory.mktemp("kills"))


def started(work: Callable[[], object]) -> int:
    """A process that does some work, and ends with 0 if that went well."""
    FILES.close()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if not process:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return process


def ended(process: int) -> int:
    """The exit code of a process, or -9 if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@dataclass
class Seen:
    """What kills were seen to leave: how many of them came in the midst of the work or left what stood there before
    aside, and which files were kept.
    """

    in_the_midst: int = 0
    aside: int = 0
    kept: list[str] = field(default_factory=list)

    def check(self, small: Conversion, *, with_old: bool) -> None:
        """See that a process which has ended has done no harm, and that the next makes all good."""
        left, found = small.beside, state_of(small.out)
        assert found in ([small.old, small.new, None] if with_old else [small.new, None])
        if with_old and found is None:
            self.aside += 1
            assert state_of(small.out.with_name(".out.mmconvert-old")) == small.old
        if found == small.new:
            with pytest.raises(OutputRefused, match="not empty"):
                small.run(overwrite=False)
        elif len(left) > 1:
            self.in_the_midst += 1
        overwrite = with_old or found is not None
        assert small.run(overwrite=overwrite, on_resume=self.kept.extend) == small.new
        assert state_of(small.out) == small.new
        assert small.beside == ["out"]


@pytest.mark.parametrize("with_old", [False, True], ids=["nothing there", "overwriting"])
def test_killed_at_any_time(small: Conversion, with_old: bool, tell: Tell) -> None:
    draw = random.Random(SEED)
    took = []
    for _ in range(3):
        small.begin_anew(with_old=with_old)
        begun = time.monotonic()
        assert ended(started(lambda: small.run(overwrite=with_old))) == 0
        took.append(time.monotonic() - begun)
    length, seen, kills = sorted(took)[1], Seen(), 0
    # On a machine that is busy with other things, many may come before anything is done.
    while kills < KILLS or (seen.in_the_midst < KILLS // 4 and kills < 10 * KILLS):
        small.begin_anew(with_old=with_old)
        process = started(lambda: small.run(overwrite=with_old))
        time.sleep(length * draw.random())
        os.kill(process, signal.SIGKILL)
        assert ended(process) in (0, -signal.SIGKILL)
        seen.check(small, with_old=with_old)
        kills += 1
    assert seen.in_the_midst
    tell("kills of conversions at any time, after which nothing was lost and the next run made all good", kills)


@pytest.mark.parametrize("with_old", [False, True], ids=["nothing there", "overwriting"])
def test_killed_before_each_call_that_writes(small: Conversion, with_old: bool, tell: Tell) -> None:
    small.begin_anew(with_old=with_old)
    with failing(0, None) as disk:
        small.run(overwrite=with_old)
    # What is seen of the calls is all that was written.
    assert disk.nbytes >= sum(path.stat().st_size for path in small.out.rglob("*") if path.is_file())
    step = amount(max(1, len(disk.calls) // 6), 1)
    tried = range(0, len(disk.calls), step)
    seen = Seen()
    for at in tried:
        small.begin_anew(with_old=with_old)

        def work(at: int = at) -> None:
            with killing(at):
                small.run(overwrite=with_old)

        assert ended(started(work)) in (0, -signal.SIGKILL)
        seen.check(small, with_old=with_old)
    assert seen.in_the_midst > len(tried) // 2
    # Only between the two renames.
    assert seen.aside <= 1
    assert bool(seen.kept) == small.resume
    tell("kills of conversions before a call that writes, with the same result", len(tried))


def test_of_two_commands_at_once_one_is_done_and_the_other_exits_5(script: Path, llama: Path, tmp_path: Path) -> None:
    for number in range(3):
        command = [str(script), "hf-to-cs", "--src", str(llama), "--out", str(tmp_path / f"out-{number}")]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = {each.returncode: each.communicate(timeout=60)[1] for each in both if each.wait(60) is not None}
        assert said.keys() == {0, 5}
        assert "another run is writing here" in said[5] or "not empty" in said[5]
        assert state_of(tmp_path / f"out-{number}") is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-0", "out-1", "out-2"]


@pytest.mark.parametrize("with_old", [False, True], ids=["nothing there", "overwriting"])
def test_of_two_at_once_one_wins_and_the_other_is_refused_at_once(
    small: Conversion, with_old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.begin_anew(with_old=with_old)
    held, done = threading.Event(), threading.Event()
    rename = os.rename

    def waiting(source: Path, target: Path) -> None:
        held.set()
        assert done.wait(60)
        rename(source, target)

    monkeypatch.setattr(os, "rename", waiting)
    first = threading.Thread(target=lambda: small.run(overwrite=with_old))
    first.start()
    assert held.wait(60)
    with pytest.raises(OutputRefused, match="another run is writing here"):
        small.run(overwrite=True)
    done.set()
    first.join()
    assert state_of(small.out) == small.new
    assert small.beside == ["out"]
