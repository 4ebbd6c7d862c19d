"""A hole is known without being read, stays a hole in the target, and nothing else is taken for one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mmconvert import staging
from mmconvert.casts import Cast, Overflow
from mmconvert.containers.layout import FileLayout, Slot
from mmconvert.copying import BLOCK
from mmconvert.dtypes import BY_NAME, DType
from mmconvert.errors import DiskError, InputRefused
from mmconvert.execute import execute
from mmconvert.holes import is_hole
from mmconvert.plans import OutputFile, Plan, PlannedTensor
from mmconvert.scan import Float16Watch
from mmconvert.sources import FileSpan, Gather, Source, stamp

# Larger than any file system's block, and a multiple of it.
UNIT = 1 << 18
SIZE = 6 * UNIT
BF16, FP32 = BY_NAME["bfloat16"], BY_NAME["float32"]


@pytest.fixture
def span(tmp_path: Path) -> FileSpan:
    """Five units of a file, after a first that is a hole: data, hole, data, hole, hole."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(SIZE)
        os.pwrite(file.fileno(), b"\1" * UNIT, UNIT)
        os.pwrite(file.fileno(), b"\1" * UNIT, 3 * UNIT)
    return FileSpan(path, UNIT, SIZE - UNIT)


def test_a_range_is_a_hole_only_if_it_lies_in_one(span: FileSpan) -> None:
    assert is_hole(span, UNIT, UNIT)
    assert is_hole(span, UNIT + 5, 7)
    assert is_hole(span, 2 * UNIT - 7, 7)
    assert is_hole(span, 3 * UNIT, 2 * UNIT)
    assert not is_hole(span, 0, UNIT)
    assert not is_hole(span, UNIT - 1, UNIT)
    assert not is_hole(span, UNIT, UNIT + 1)
    assert not is_hole(span, UNIT, 3 * UNIT)


def test_what_lies_behind_the_end_of_the_file_is_no_hole(span: FileSpan) -> None:
    assert not is_hole(span, 3 * UNIT, 2 * UNIT + 1)
    os.truncate(span.path, 5 * UNIT)
    assert is_hole(span, 3 * UNIT, UNIT)
    assert not is_hole(span, 3 * UNIT, 2 * UNIT)
    assert not is_hole(span, 4 * UNIT, UNIT)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="absent: cannot be read"):
        is_hole(FileSpan(tmp_path / "absent", 0, 1), 0, 1)


def test_rows_are_a_hole_if_all_those_wanted_are(span: FileSpan) -> None:
    row = UNIT // 4
    backwards = Gather(span, tuple(reversed(range(20))), row)
    assert is_hole(backwards, 0, 2 * UNIT)
    assert is_hole(backwards, 3 * UNIT + row, row)
    assert is_hole(backwards, row + 1, row)
    assert not is_hole(backwards, 2 * UNIT - row, row + 1)
    assert not is_hole(backwards, 0, 5 * UNIT)
    assert not is_hole(Gather(span, (7, 8, 6), row), 0, 3 * row)


@pytest.mark.parametrize(("before", "after"), [(BF16, FP32), (FP32, BF16)])
def test_zeros_in_another_precision_are_zeros(span: FileSpan, before: DType, after: DType) -> None:
    unit = UNIT // before.itemsize * after.itemsize
    cast = Cast(span, before, after, "key", Overflow())
    assert is_hole(cast, unit, unit)
    assert not is_hole(cast, unit - after.itemsize, unit)
    assert not is_hole(cast, unit, unit + after.itemsize)


def test_who_watches_values_need_not_see_zeros(span: FileSpan) -> None:
    watch = Float16Watch(span, BF16, "key", Overflow())
    assert is_hole(watch, UNIT, UNIT)
    assert not is_hole(watch, 0, UNIT)


def test_a_source_that_is_made_has_no_holes() -> None:
    class Made:
        def read_into(self, start: int, buffers: object) -> None: ...

    made: Source = Made()
    assert not is_hole(made, 0, 1)


Seek = Callable[[int, int, int], int]


def cannot(whence: int, number: int) -> Seek:
    lseek: Seek = os.lseek

    def seek(fd: int, position: int, how: int) -> int:
        if how == whence:
            raise OSError(number, os.strerror(number))
        return lseek(fd, position, how)

    return seek


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.EIO])
@pytest.mark.parametrize("whence", [os.SEEK_DATA, os.SEEK_HOLE])
def test_where_the_file_system_cannot_say_nothing_is_a_hole(
    span: FileSpan, monkeypatch: pytest.MonkeyPatch, whence: int, number: int
) -> None:
    monkeypatch.setattr(os, "lseek", cannot(whence, number))
    assert not is_hole(span, UNIT, UNIT)


def test_where_the_system_cannot_say_nothing_is_a_hole(span: FileSpan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "SEEK_DATA")
    assert not is_hole(span, UNIT, UNIT)


def test_a_system_that_steps_over_the_data_it_stands_in_is_not_believed(
    span: FileSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    lseek: Seek = os.lseek

    def stepping(fd: int, position: int, how: int) -> int:
        beyond = 2 * UNIT if how == os.SEEK_DATA and position == UNIT else position
        return lseek(fd, beyond, how)

    with span.path.open("r+b") as file:
        file.seek(UNIT)
        file.write(bytes(UNIT))  # zeros, and no hole
    monkeypatch.setattr(os, "lseek", stepping)
    assert not is_hole(span, 0, UNIT)


def test_fresh_data_that_the_file_system_calls_a_hole_are_not_left_out(
    span: FileSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "lseek", lambda fd, position, how: position if how == os.SEEK_HOLE else SIZE)
    assert not is_hole(span, 0, UNIT)
    assert is_hole(span, UNIT, UNIT)


# Of the sparse file, which has data in two places: the bytes before the second one, and from there on.
MIDDLE, TAIL = 4 * BLOCK + 1000, 3 * BLOCK
# What is written of it: the blocks with data in them.
WRITTEN = 2 * BLOCK


@pytest.fixture
def sparse(tmp_path: Path) -> Plan:
    """One output from a sparse file: data and holes in one tensor; of a hole, the end, a cast and some rows."""
    source = tmp_path / "src.bin"
    with source.open("wb") as file:
        file.write(b"start")
        file.seek(MIDDLE)
        file.write(b"middle")
        file.truncate(MIDDLE + TAIL)
    mixed, tail = FileSpan(source, 0, MIDDLE + 6), FileSpan(source, MIDDLE + TAIL // 2, TAIL // 2)
    rows = Gather(tail, tuple(reversed(range(TAIL // 2 // 512))), 512)
    cast = Cast(tail, BF16, FP32, "cast", Overflow())
    sources: dict[str, Source] = {"mixed": mixed, "tail": tail, "rows": rows, "cast": cast}
    sizes = {"mixed": MIDDLE + 6, "tail": TAIL // 2, "rows": TAIL // 2, "cast": TAIL}
    tensors, slots, position = [], {}, 8
    for key, size in sizes.items():
        tensors.append(PlannedTensor(key, BY_NAME["uint8"], (size,), sources[key], key, "copied"))
        slots[key] = Slot(position, size)
        position += size + -size % 8
    layout = FileLayout("model.mdl", position, ((0, b"header"),), slots)
    return Plan(
        tmp_path / "out", (OutputFile(layout, tuple(tensors)),), {}, sources=(source,), files={source: stamp(source)}
    )


def fill_holes(plan: Plan) -> Plan:
    """Write the source's zeros down, so that it is a file like others."""
    (source,) = plan.files
    source.write_bytes(source.read_bytes())
    return replace(plan, files={source: stamp(source)})


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_holes_stay_holes_and_all_else_is_as_without_them(sparse: Plan) -> None:
    holes = execute(sparse, fsync=False)
    full = replace(fill_holes(sparse), out=sparse.out.with_name("full"))
    assert execute(full, fsync=False) == holes
    assert (sparse.out / "model.mdl").read_bytes() == (full.out / "model.mdl").read_bytes()
    size = sparse.outputs[0].layout.size
    assert on_disk(full.out / "model.mdl") >= size
    assert on_disk(sparse.out / "model.mdl") < WRITTEN + BLOCK < size // 2


def test_a_hole_is_not_read(sparse: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    read, preadv = 0, os.preadv

    def counting(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        nonlocal read
        read += sum(map(len, buffers))
        return preadv(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", counting)
    execute(sparse, fsync=False)
    assert 0 < read <= WRITTEN


def test_a_file_system_that_knows_no_holes_gives_the_same_bytes(sparse: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    holes = execute(sparse, fsync=False)
    plain = replace(sparse, out=sparse.out.with_name("plain"))
    monkeypatch.setattr(os, "lseek", cannot(os.SEEK_DATA, errno.EINVAL))
    assert execute(plain, fsync=False) == holes
    assert (sparse.out / "model.mdl").read_bytes() == (plain.out / "model.mdl").read_bytes()


def test_room_is_asked_for_what_will_be_written(sparse: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_free", lambda path: staging.MARGIN + WRITTEN + 4096)
    execute(sparse, fsync=False)
    with pytest.raises(DiskError, match="not enough room"):
        execute(fill_holes(sparse), fsync=False, overwrite=True)
