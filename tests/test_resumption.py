"""What a run that was stopped has finished is kept, if it is right to the last bit; the end is as if never stopped."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmconvert.casts import Cast, Overflow
from mmconvert.containers.layout import FileLayout, Slot
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import DiskError, InputRefused, OutputRefused, UsageError
from mmconvert.execute import execute
from mmconvert.manifest import check_folder
from mmconvert.plans import OutputFile, Plan, PlannedTensor
from mmconvert.resumption import NAME
from mmconvert.sources import FILES, FileSpan, Source, stamp

SHARDS = ("one.mdl", "deep/two.mdl", "three.mdl")
ELEMENTS = 4096
BF16, FP16 = BY_NAME["bfloat16"], BY_NAME["float16"]


class Stopped(BaseException):
    """An interrupt."""


@dataclass(frozen=True)
class Watched:
    """A source that counts its reads, and may end the run at one of them."""

    inner: Source
    reads: list[str]
    name: str
    stop: Callable[[str], None]

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        self.stop(self.name)
        self.reads.append(self.name)
        self.inner.read_into(start, buffers)


@dataclass
class Work:
    """A conversion to three files in which values overflow, two in each; `reads` are the files written in this run."""

    source: Path
    out: Path
    reads: list[str]
    stop_at: str | None = None
    stop: Callable[[], object] = lambda: None

    def plan(self) -> Plan:
        overflow = Overflow()

        def stop(name: str) -> None:
            if name == self.stop_at:
                self.stop()

        outputs = []
        for number, name in enumerate(SHARDS):
            span = FileSpan(self.source, number * 2 * ELEMENTS, 2 * ELEMENTS)
            source = Cast(Watched(span, self.reads, name, stop), BF16, FP16, f"tensor.{number}", overflow)
            tensor = PlannedTensor(f"tensor.{number}", FP16, (ELEMENTS,), source, f"tensor.{number}", "cast")
            layout = FileLayout(name, 2 * ELEMENTS + 8, ((0, b"header--"),), {tensor.key: Slot(8, tensor.nbytes)})
            outputs.append(OutputFile(layout, (tensor,)))
        return Plan(
            out=self.out,
            outputs=tuple(outputs),
            documents={"config.yaml": b"a: 1\n"},
            facts={"options": {"dtype": {"all": "float16"}}},
            tallies={"overflow": overflow},
            sources=(self.source,),
            files={self.source: stamp(self.source)},
        )

    def run(self, *, resume: bool = True, **options: Any) -> tuple[dict[str, Any], list[str]]:
        """The manifest, and the files that were kept."""
        kept: list[str] = []
        document = execute(self.plan(), fsync=False, resume=resume, on_resume=kept.extend, **options)
        return document, kept

    @contextmanager
    def stopped(self, at: str, error: BaseException | None = None) -> Iterator[None]:
        """The next run ends when it comes to a file, in which it is alone: files are written in their order."""

        def stop() -> None:
            raise error or Stopped

        self.stop_at, self.stop = at, stop
        try:
            yield
        finally:
            self.stop_at = None
            self.reads.clear()
            FILES.close()

    @property
    def staging(self) -> Path:
        return self.out.with_name(f".{self.out.name}.mmconvert-staging")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    # One worker: what comes before the file that a run ends in is finished then.
    monkeypatch.setattr("mmconvert.copying.WORKERS", 1)
    values = np.ones(3 * ELEMENTS, np.float32)
    values[7::ELEMENTS] = values[9::ELEMENTS] = 1e30
    source = tmp_path / "source.bin"
    source.write_bytes((values.view(np.uint32) >> 16).astype("<u2").tobytes())
    return Work(source, tmp_path / "out", [])


@pytest.fixture
def expected(work: Work, tmp_path: Path) -> dict[str, Any]:
    document, _ = replace(work, out=tmp_path / "expected", reads=[]).run(resume=False)
    assert set(document["overflow"].values()) == {2}
    return document


@pytest.mark.parametrize("stop", SHARDS)
def test_what_was_finished_is_kept_and_the_end_is_the_same(work: Work, expected: dict[str, Any], stop: str) -> None:
    done = list(SHARDS[: SHARDS.index(stop)])
    with work.stopped(stop), pytest.raises(Stopped):
        work.run()
    document, kept = work.run()
    assert kept == done
    assert set(work.reads) == set(SHARDS) - set(done)
    assert document == expected
    assert json.loads((work.out / "mmconvert.json").read_bytes()) == expected
    assert not check_folder(work.out).problems
    assert sorted(path.name for path in work.out.parent.iterdir()) == ["expected", "out", "source.bin"]
    assert not (work.out / NAME).exists()


def test_it_may_be_stopped_again_and_again(work: Work, expected: dict[str, Any]) -> None:
    for stop in SHARDS:
        with work.stopped(stop), pytest.raises(Stopped):
            work.run()
    assert work.run() == (expected, list(SHARDS[:2]))


def test_a_run_that_was_killed_has_left_it_without_being_told_to(work: Work, expected: dict[str, Any]) -> None:
    process = os.fork()
    if not process:
        work.stop_at, work.stop = SHARDS[2], lambda: os._exit(9)
        work.run(resume=False)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    assert work.run() == (expected, list(SHARDS[:2]))


def test_unless_told_to_a_run_begins_anew_and_leaves_nothing(work: Work, expected: dict[str, Any]) -> None:
    with work.stopped(SHARDS[2]), pytest.raises(Stopped):
        work.run()
    assert work.staging.is_dir()
    with work.stopped(SHARDS[1]), pytest.raises(Stopped):
        work.run(resume=False)
    assert not work.staging.exists()
    assert work.run() == (expected, [])


def test_a_full_disk_leaves_it_to_the_next_run_and_a_refusal_does_not(work: Work, expected: dict[str, Any]) -> None:
    with work.stopped(SHARDS[2], OSError(errno.ENOSPC, "No space left on device")), pytest.raises(DiskError):
        work.run()
    with work.stopped(SHARDS[2], InputRefused("no")), pytest.raises(InputRefused):
        work.run()
    assert not work.staging.exists()
    assert work.run() == (expected, [])


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit of a tensor": lambda folder: flip(folder / "one.mdl", 100),
    "a bit of the frame": lambda folder: flip(folder / "one.mdl", 3),
    "a file cut off": lambda folder: os.truncate(folder / "one.mdl", 100),
    "a file that is gone": lambda folder: (folder / "one.mdl").unlink(),
    "a link": lambda folder: (folder / "one.mdl").rename(folder / "moved").with_name("one.mdl").symlink_to("moved"),
    "a byte more": lambda folder: (folder / "one.mdl").write_bytes((folder / "one.mdl").read_bytes() + b"x"),
    "a line of the journal": lambda folder: flip(folder / NAME, (folder / NAME).read_bytes().index(b'"one.mdl"') + 2),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_file_that_is_not_what_was_written_is_written_again(work: Work, expected: dict[str, Any], what: str) -> None:
    with work.stopped(SHARDS[2]), pytest.raises(Stopped):
        work.run()
    DAMAGE[what](work.staging)
    assert work.run() == (expected, ["deep/two.mdl"])
    assert sorted(path.name for path in work.out.iterdir()) == sorted(
        ["config.yaml", "deep", "mmconvert.json", "one.mdl", "three.mdl"]
    )


OTHER: dict[str, Callable[[Work], object]] = {
    "the source was touched": lambda work: os.utime(work.source, ns=(1, 1)),
    "another journal": lambda work: flip(work.staging / NAME, 0),
    "no journal": lambda work: (work.staging / NAME).unlink(),
    "nothing else": lambda work: None,
}


@pytest.mark.parametrize("what", OTHER)
def test_other_work_takes_nothing_up(work: Work, what: str) -> None:
    with work.stopped(SHARDS[2]), pytest.raises(Stopped):
        work.run()
    (work.staging / "stray").mkdir()
    (work.staging / "stray" / "file").touch()
    OTHER[what](work)
    assert work.run()[1] == (list(SHARDS[:2]) if what == "nothing else" else [])
    assert not (work.out / "stray").exists()


def test_other_options_take_nothing_up(work: Work) -> None:
    with work.stopped(SHARDS[2]), pytest.raises(Stopped):
        work.run()
    assert work.run(digest="sha256")[1] == []


def test_the_last_line_may_have_been_cut_off(work: Work, expected: dict[str, Any]) -> None:
    with work.stopped(SHARDS[2]), pytest.raises(Stopped):
        work.run()
    journal = work.staging / NAME
    os.truncate(journal, journal.stat().st_size - 5)
    with work.stopped(SHARDS[2]), pytest.raises(Stopped):
        assert work.run()
    assert work.run() == (expected, list(SHARDS[:2]))


def test_what_is_there_already_is_room(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    with work.stopped(SHARDS[2]), pytest.raises(Stopped):
        work.run()
    needed = work.plan().bytes_to_write
    monkeypatch.setattr("mmconvert.staging._free", lambda path: needed - 2 * ELEMENTS)
    monkeypatch.setattr("mmconvert.staging.MARGIN", 0)
    with pytest.raises(DiskError, match="not enough room"):
        replace(work, out=work.out.with_name("elsewhere")).run()
    assert work.run()[1] == list(SHARDS[:2])


def test_a_folder_that_has_become_a_link_is_none_of_its_own(work: Work, expected: dict[str, Any]) -> None:
    with work.stopped(SHARDS[2]), pytest.raises(Stopped):
        work.run()
    elsewhere = work.out.with_name("elsewhere")
    (work.staging / "deep").rename(elsewhere)
    (work.staging / "deep").symlink_to(elsewhere)
    before = (elsewhere / "two.mdl").read_bytes()
    assert work.run() == (expected, ["one.mdl"])
    assert (work.out / "deep" / "two.mdl").is_file()
    assert not (work.out / "deep").is_symlink()
    assert (elsewhere / "two.mdl").read_bytes() == before


@pytest.mark.parametrize("fsync", [True, False])
def test_what_is_kept_reaches_the_disk_where_it_should(
    work: Work, fsync: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with work.stopped(SHARDS[2]), pytest.raises(Stopped):
        work.run()
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name))
    execute(work.plan(), fsync=fsync, resume=True)
    assert {"one.mdl", "two.mdl", "three.mdl"} & set(synced) == (
        {"one.mdl", "two.mdl", "three.mdl"} if fsync else set()
    )


def test_another_version_takes_nothing_up(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    with work.stopped(SHARDS[2]), pytest.raises(Stopped):
        work.run()
    monkeypatch.setattr("mmconvert.resumption.__version__", "0.0.1")
    assert work.run()[1] == []


@pytest.mark.parametrize("other", [{"rule": "another"}, {"origin": "another"}])
def test_nor_does_another_plan(work: Work, other: dict[str, Any]) -> None:
    with work.stopped(SHARDS[2]), pytest.raises(Stopped):
        work.run()
    plan, kept = work.plan(), list[str]()
    outputs = [replace(each, tensors=tuple(replace(t, **other) for t in each.tensors)) for each in plan.outputs]
    execute(replace(plan, outputs=tuple(outputs)), fsync=False, resume=True, on_resume=kept.extend)
    assert kept == []


def test_a_file_that_was_sealed_is_written_again(work: Work) -> None:
    """Its frame is not the one that it was laid out with."""
    plan, kept = work.plan(), list[str]()
    sealed = [replace(each, layout=replace(each.layout, seal=lambda fd: ((0, b"sealed--"),))) for each in plan.outputs]
    plan = replace(plan, outputs=tuple(sealed))
    with work.stopped(SHARDS[2]), pytest.raises(Stopped):
        execute(plan, fsync=False, resume=True)
    assert (work.staging / "one.mdl").read_bytes()[:8] == b"sealed--"
    execute(plan, fsync=False, resume=True, on_resume=kept.extend)
    assert kept == []


def test_without_digests_nothing_can_be_taken_up(work: Work) -> None:
    with pytest.raises(UsageError, match="--digest none"):
        work.run(digest="none")
    work.run(resume=False, digest="none")


def test_a_target_that_is_complete_is_not_begun_anew(work: Work) -> None:
    work.run()
    with pytest.raises(OutputRefused, match="not empty"):
        work.run()
