"""A plan is carried out to the byte, or not at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mmconvert.containers.layout import FileLayout, Frame, Slot
from mmconvert.copying import BLOCK
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import DiskError, InputRefused, OutputRefused
from mmconvert.execute import execute
from mmconvert.manifest import check_folder
from mmconvert.plans import OutputFile, Plan, PlannedTensor, Twins
from mmconvert.sources import FileSpan, Source, TensorRef, stamp

U8 = BY_NAME["uint8"]
BIG = 2 * BLOCK + 3
Make = Callable[..., Path]


@dataclass(frozen=True)
class Memory:
    """A source whose bytes are at hand."""

    data: bytes

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            buffer[:] = self.data[start : start + len(buffer)]
            start += len(buffer)


def planned(key: str, nbytes: int, source: Source) -> PlannedTensor:
    return PlannedTensor(key, U8, (nbytes,), source, key, "copied")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two weights files in two folders, one of them with a frame in two places and an empty tensor; and documents."""
    source = tmp_path / "src.bin"
    source.write_bytes(os.urandom(BIG + 50))
    first = FileLayout(
        "vision/model.mdl",
        BIG + 100,
        ((0, b"header"), (BIG + 70, b"middle")),
        {"big": Slot(64, BIG), "none": Slot(10, 0), "small": Slot(BIG + 80, 20)},
    )
    second = FileLayout("text/model.mdl", 34, ((0, b"head"),), {"small": Slot(4, 30)})
    third = FileLayout("empty.mdl", 5, ((0, b"empty"),), {})
    return Plan(
        out=tmp_path / "out",
        outputs=(
            OutputFile(
                first,
                (
                    planned("none", 0, Memory(b"")),
                    planned("big", BIG, FileSpan(source, 0, BIG)),
                    planned("small", 20, FileSpan(source, BIG, 20)),
                ),
            ),
            OutputFile(second, (planned("small", 30, FileSpan(source, BIG + 20, 30)),)),
            OutputFile(third, ()),
        ),
        documents={"config.yaml": b"a: 1\n", "assets/deep/tokenizer.json": b"{}"},
        sources=(source,),
        files={source: stamp(source)},
    )


def left_over(plan: Plan) -> set[str]:
    return {path.name for path in plan.out.parent.iterdir()} - {"src.bin"}


def test_every_byte_arrives_at_its_place(plan: Plan) -> None:
    document = execute(plan, fsync=False)
    data = plan.sources[0].read_bytes()
    vision = b"header" + bytes(58) + data[:BIG] + bytes(6) + b"middle" + bytes(4) + data[BIG : BIG + 20]
    assert (plan.out / "vision/model.mdl").read_bytes() == vision
    assert (plan.out / "text/model.mdl").read_bytes() == b"head" + data[BIG + 20 :]
    assert (plan.out / "empty.mdl").read_bytes() == b"empty"
    assert (plan.out / "config.yaml").read_bytes() == b"a: 1\n"
    assert (plan.out / "assets/deep/tokenizer.json").read_bytes() == b"{}"
    assert json.loads((plan.out / "mmconvert.json").read_bytes()) == document
    assert left_over(plan) == {"out"}


def test_the_same_plan_gives_the_same_bytes(plan: Plan) -> None:
    execute(plan, fsync=False)
    again = replace(plan, out=plan.out.with_name("again"))
    execute(again, fsync=False)
    files = sorted(path.relative_to(plan.out) for path in plan.out.rglob("*") if path.is_file())
    assert len(files) == 6
    for name in files:
        assert (plan.out / name).read_bytes() == (again.out / name).read_bytes(), name


def test_file_modes_follow_the_umask(plan: Plan) -> None:
    before = os.umask(0o027)
    try:
        execute(plan, fsync=False)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in plan.out.rglob("*") if path.is_file()}
    assert modes == {0o640}


@pytest.mark.parametrize("fsync", [True, False])
def test_with_fsync_every_file_and_folder_reaches_the_disk(
    plan: Plan, fsync: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    execute(plan, fsync=fsync)
    staging = plan.out.with_name(".out.mmconvert-staging")
    written = [staging, *(staging / path.relative_to(plan.out) for path in plan.out.rglob("*")), plan.out.parent]
    assert sorted(synced) == (sorted(map(str, written)) if fsync else [])


@pytest.mark.parametrize("failing", [1, 2, 5, 9])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_leaves_nothing(
    plan: Plan, number: int, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def limited(write: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            nonlocal calls
            calls += 1
            if calls >= failing:
                raise OSError(number, os.strerror(number))
            return write(*arguments)

        return call

    for name in ("pwrite", "copy_file_range"):
        monkeypatch.setattr(os, name, limited(getattr(os, name)))
    with pytest.raises(DiskError, match=r"needed, .* free"):
        execute(plan, fsync=False)
    assert left_over(plan) == set()


def test_short_writes_are_taken_up_again(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[: max(1, len(data) // 2)], offset))
    execute(plan, fsync=False)
    assert (plan.out / "text/model.mdl").read_bytes() == b"head" + plan.sources[0].read_bytes()[BIG + 20 :]


def test_a_source_that_ends_early_leaves_nothing(plan: Plan) -> None:
    os.truncate(plan.sources[0], BIG)
    with pytest.raises(InputRefused, match=r"src\.bin"):
        execute(plan, fsync=False)
    assert left_over(plan) == set()


def test_a_source_that_changes_meanwhile_is_refused(plan: Plan) -> None:
    class Touch:
        def start(self, total_bytes: int) -> None: ...
        def advance(self, nbytes: int) -> None:
            os.utime(plan.sources[0], ns=(1, 1))

        def finish(self) -> None: ...

    with pytest.raises(InputRefused, match="changed while it was read"):
        execute(plan, fsync=False, progress=Touch())
    assert left_over(plan) == set()


def test_one_that_changed_after_it_was_planned_is_refused_even_where_it_looks_the_same(plan: Plan) -> None:
    (source,) = plan.files
    status, data = source.stat(), source.read_bytes()
    source.write_bytes(data[::-1])
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(InputRefused, match="changed while it was read"):
        execute(plan, fsync=False)
    assert left_over(plan) == set()


def test_a_later_conversion_reads_a_source_that_was_replaced(plan: Plan) -> None:
    execute(plan, fsync=False)
    (source,) = plan.files
    fresh = source.with_name("fresh")
    fresh.write_bytes(bytes(BIG + 50))
    fresh.rename(source)
    with pytest.raises(InputRefused, match="changed while it was read"):
        execute(plan, fsync=False, overwrite=True)
    execute(replace(plan, files={source: stamp(source)}), fsync=False, overwrite=True)
    assert (plan.out / "text/model.mdl").read_bytes() == b"head" + bytes(30)


def twins(left: bytes, right: bytes) -> tuple[Twins, ...]:
    kept = TensorRef("norm.weight", U8, (len(left),), Memory(left))
    twin = TensorRef("ln_f.weight", U8, (len(right),), Memory(right))
    return (Twins(kept, twin, "the target has one norm for both"),)


def test_twins_that_differ_in_their_last_byte_are_refused(plan: Plan) -> None:
    different = replace(plan, twins=twins(bytes(BIG), bytes(BIG - 1) + b"x"))
    with pytest.raises(InputRefused, match=r"ln_f\.weight.*norm\.weight.*the target has one norm"):
        execute(different, fsync=False)
    assert left_over(plan) == set()


def test_twins_that_agree_are_nothing_to_remark(plan: Plan) -> None:
    execute(replace(plan, twins=twins(bytes(BIG), bytes(BIG))), fsync=False)
    assert plan.out.is_dir()


def test_progress_hears_of_every_byte_and_of_the_end(plan: Plan) -> None:
    heard: list[tuple[str, int]] = []

    class Listener:
        def start(self, total_bytes: int) -> None:
            heard.append(("start", total_bytes))

        def advance(self, nbytes: int) -> None:
            heard.append(("advance", nbytes))

        def finish(self) -> None:
            heard.append(("finish", 0))

    execute(plan, fsync=False, progress=Listener())
    assert heard[0] == ("start", BIG + 50)
    assert sum(nbytes for what, nbytes in heard if what == "advance") == BIG + 50
    assert heard[-1] == ("finish", 0)


def sealed(plan: Plan, seal: Callable[[int], Frame]) -> Plan:
    """The plan with a first file that is sealed."""
    first, *others = plan.outputs
    return replace(plan, outputs=(replace(first, layout=replace(first.layout, seal=seal)), *others))


def test_a_file_is_sealed_when_all_its_tensors_are_there_and_before_it_reaches_the_disk(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = plan.sources[0].read_bytes()
    done: list[str] = []

    def seal(fd: int) -> Frame:
        done.append("sealed")
        assert os.pread(fd, BIG, 64) == data[:BIG]
        assert os.pread(fd, 20, BIG + 80) == data[BIG : BIG + 20]
        return (0, b"sealed"), (BIG + 70, b"middle")

    monkeypatch.setattr(os, "fsync", lambda fd: done.append(Path(os.readlink(f"/proc/self/fd/{fd}")).parent.name))
    execute(sealed(plan, seal), fsync=True)
    assert [each for each in done if each in ("sealed", "vision")] == ["sealed", "vision"]
    assert (plan.out / "vision/model.mdl").read_bytes().startswith(b"sealed")
    assert check_folder(plan.out).problems == []


def test_a_seal_that_fails_leaves_nothing(plan: Plan) -> None:
    def seal(fd: int) -> Frame:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(DiskError):
        execute(sealed(plan, seal), fsync=False)
    assert left_over(plan) == set()


def test_an_interrupt_leaves_nothing(plan: Plan) -> None:
    class Interrupting:
        def start(self, total_bytes: int) -> None: ...
        def advance(self, nbytes: int) -> None:
            raise KeyboardInterrupt

        def finish(self) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        execute(plan, fsync=False, progress=Interrupting())
    assert left_over(plan) == set()


def test_a_target_that_stands_is_kept_unless_overwrite(plan: Plan) -> None:
    plan.out.mkdir()
    (plan.out / "theirs").touch()
    with pytest.raises(OutputRefused):
        execute(plan, fsync=False)
    assert [path.name for path in plan.out.iterdir()] == ["theirs"]
    execute(plan, fsync=False, overwrite=True)
    assert not (plan.out / "theirs").exists()


FEW = 64


@pytest.mark.parametrize("container", ["safetensors", "bin"])
def test_many_shards_need_few_descriptors(make_llama: Make, tmp_path: Path, container: str) -> None:
    source = make_llama(tmp_path / "src", container=container, shards=120, num_hidden_layers=14)
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({FEW}, {FEW}))"
    program = f"{limited}; from mmconvert.cli import main; main()"
    wanted = ("--to", "cs", "--container", "safetensors", "--max-shard-size", "1B", "--verify", "bytes", "--no-fsync")
    places = ("--src", str(source), "--out", str(tmp_path / "out"))
    command = [sys.executable, "-c", program, "convert", *places, *wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > FEW
