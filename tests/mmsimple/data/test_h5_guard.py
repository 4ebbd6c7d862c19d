"""Training files that could lead HDF5 astray are refused by name, by a process that may die of them."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmconvert.errors import InputRefused
from mmsimple.data import h5_child, h5_guard
from mmsimple.data.dataset import MultimodalDataset
from mmsimple.data.h5 import Files, read_layout
from mmsimple.data.h5_guard import check_files
from tests.mmsimple.data.pictures import make_dataset
from tests.mmsimple.data.test_h5 import same
from tests.mmsimple.data.worked_example import A, B, C, file_of, write_with_h5py

ROWS = [A, B, C]
FIXED = np.array([row.paths for row in ROWS], "S10")


@pytest.fixture
def looked_at_here() -> None:
    """They are not: here it is the other process that is tested."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.h5").write_bytes(file_of(ROWS))
    return tmp_path / "a.h5"


def replaced(file: h5py.File, name: str, **options: Any) -> h5py.Dataset:
    """A dataset anew, created otherwise."""
    content, dtype = file[name][()], file[name].dtype
    del file[name]
    return file.create_dataset(name, **{"data": content, "dtype": dtype, **options})


def linked(file: h5py.File, link: Any) -> None:
    del file["data"]
    file["data"] = link


def virtual(file: h5py.File) -> None:
    del file["data"]
    layout = h5py.VirtualLayout((3, 5, 16), "i4")
    layout[:] = h5py.VirtualSource("other.h5", "data", (3, 5, 16))
    file.create_virtual_dataset("data", layout)


def unwritten(file: h5py.File, name: str, shape: tuple[int, ...], **options: Any) -> None:
    del file[name]
    file.create_dataset(name, shape, "i4", **options)


def compact(file: h5py.File) -> None:
    content = file["img_data_loc"][()]
    del file["img_data_loc"]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(content.shape)
    h5py.h5d.create(file.id, b"img_data_loc", h5py.h5t.NATIVE_INT32, space, plist).write(
        h5py.h5s.ALL, h5py.h5s.ALL, content
    )


def narrow(file: h5py.File) -> None:
    """Integers of 20 bits in 4 bytes, which HDF5 converts."""
    kind = h5py.h5t.NATIVE_INT32.copy()
    kind.set_precision(20)
    shape = file["data"].shape
    del file["data"]
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, b"data", kind, space).write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(shape, np.int32))


def chunk(file: h5py.File, name: str, at: tuple[int, ...], content: bytes) -> None:
    file[name].id.write_direct_chunk(at, zlib.compress(content))


Change = Callable[[h5py.File], object]
REFUSED: dict[str, tuple[Change, str]] = {
    "no dataset": (lambda file: file.pop("img_path"), "has no dataset img_path"),
    "a group": (lambda file: (file.pop("data"), file.create_group("data")), "has no dataset data"),
    "soft link": (lambda file: linked(file, h5py.SoftLink("/has_img")), "has no dataset data"),
    "external link": (lambda file: linked(file, h5py.ExternalLink("b.h5", "data")), "has no dataset data"),
    "external storage": (
        lambda file: replaced(file, "img_data_loc", external=[(f"{file.filename}.raw", 0, h5py.h5f.UNLIMITED)]),
        "img_data_loc lies in other files",
    ),
    "virtual": (virtual, "data lies in other files"),
    "lzf": (lambda file: replaced(file, "data", chunks=(1, 5, 16), compression="lzf"), r"data .* filters \[32000\]"),
    "shuffle": (lambda file: replaced(file, "data", compression="gzip", shuffle=True), r"data .* filters \[2, 1\]"),
    "scaled": (lambda file: replaced(file, "img_data_loc", scaleoffset=0), r"img_data_loc .* filters \[6\]"),
    "never written": (lambda file: unwritten(file, "img_data_loc", (3, 2, 4)), "img_data_loc was never written"),
    "in the headers": (compact, "img_data_loc was never written, or lies in the file's headers"),
    "chunks missing": (lambda file: unwritten(file, "data", (3, 5, 16), chunks=(1, 5, 16)), "not all of its chunks"),
    "a huge chunk": (
        lambda file: unwritten(file, "data", (1, 5, 1 << 26), chunks=(1, 5, 1 << 26)),
        "chunks of more than 1 GiB",
    ),
    "floats": (lambda file: replaced(file, "data", dtype="f4"), "data is of no type that is read"),
    "20 bits": (narrow, "data is of no type that is read"),
    "no strings": (lambda file: unwritten(file, "img_path", (3, 2)), "img_path is of no type that is read"),
    "lists for strings": (
        lambda file: (file.pop("img_path"), file.create_dataset("img_path", (3, 2), h5py.vlen_dtype("i4"))),
        "img_path is of no type that is read",
    ),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
def test_what_leads_astray_is_refused(change: Change, said: str, path: Path) -> None:
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputRefused, match=rf"a\.h5: .*{said}") as caught:
        check_files([path])
    assert "\n" not in str(caught.value)


def test_a_file_with_a_user_block_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512):
        pass
    with pytest.raises(InputRefused, match="user block"):
        check_files([tmp_path / "a.h5"])


@pytest.mark.parametrize("length", [0, 8, 96, 1000, -1])
def test_a_file_that_is_cut_off_is_refused(length: int, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputRefused, match=r"a\.h5: cannot be read as HDF5"):
        check_files([path])


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.h5")
    with pytest.raises(InputRefused, match="not a regular file"):
        check_files([tmp_path / "a.h5"])


def test_files_as_programs_write_them_pass(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(file_of(ROWS))
    write_with_h5py(tmp_path / "b.h5", ROWS)
    check_files([tmp_path / "a.h5", tmp_path / "b.h5"])


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (2, 3, 7)}, {"chunks": (2, 5, 16), "compression": "gzip"}, {"dtype": ">i8", "chunks": (3, 1, 16)}],
    ids=str,
)
@pytest.mark.parametrize("name", ["data", "img_data_loc"])
def test_however_it_is_cut_a_file_reads_the_same(name: str, options: dict[str, Any], path: Path) -> None:
    with h5py.File(path, "r+") as file:
        chunks = options.get("chunks")
        cut = {"chunks": tuple(map(min, chunks, file[name].shape))} if chunks else {}
        replaced(file, name, **{**options, **cut})
    check_files([path])
    files = Files()
    assert all(same(files.read(path, number), row) for number, row in enumerate(ROWS))


@pytest.mark.parametrize("content", [b"", b"\1" * 319, b"\1" * 321, b"\1" * (1 << 20)], ids=len)
def test_a_chunk_of_another_length_is_never_given_out(content: bytes, path: Path) -> None:
    """Of one that is too short HDF5 gives what lies behind it in memory."""
    with h5py.File(path, "r+") as file:
        chunk(file, "data", (1, 0, 0), content)
    check_files([path])
    files = Files()
    assert same(files.read(path, 0), A)
    with pytest.raises(InputRefused, match=r"a\.h5: sample 1: cannot be read as HDF5: a chunk holds"):
        files.read(path, 1)


def test_nor_is_one_of_names(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        replaced(file, "img_path", chunks=(1, 2), compression="gzip")
    check_files([path])
    with h5py.File(path, "r+") as file:
        chunk(file, "img_path", (1, 0), b"\0" * 31)
    with pytest.raises(InputRefused, match="a chunk holds 31 bytes"):
        check_files([path])


@pytest.mark.parametrize(
    "options",
    [{"data": FIXED, "dtype": "S10"}, {"chunks": (2, 1)}, {"chunks": (3, 2), "compression": "gzip"}],
    ids=["fixed length", "cut", "gzip"],
)
def test_however_names_are_kept_they_read_the_same(options: dict[str, Any], path: Path) -> None:
    with h5py.File(path, "r+") as file:
        replaced(file, "img_path", **options)
    check_files([path])
    files = Files()
    assert all(same(files.read(path, number), row) for number, row in enumerate(ROWS))


def test_a_chunk_that_was_not_compressed_is_read_as_it_lies(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        content = file["data"][1].tobytes()
        file["data"].id.write_direct_chunk((1, 0, 0), content, filter_mask=1)
    check_files([path])
    assert same(Files().read(path, 1), B)


# --- the other process ----------------------------------------------------------------------------------------------


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    for name in "abc":
        (tmp_path / f"{name}.h5").write_bytes(file_of(ROWS))
    return [tmp_path / f"{name}.h5" for name in "abc"]


def child(*lines: str) -> tuple[str, ...]:
    return ("-c", "\n".join(["import os, sys, time", "from mmsimple.data import h5_child", *lines]))


def test_each_file_is_looked_at_once_until_it_changes(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    check_files(paths)
    monkeypatch.setattr(h5_guard, "CHILD", child("os.abort()"))
    check_files(paths)
    os.utime(paths[1])
    with pytest.raises(InputRefused, match=r"b\.h5: is damaged: it crashed HDF5 \(status -6\)"):
        check_files(paths)


def test_the_file_that_it_dies_of_is_named(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    die = "h5_child.check = lambda path: path.name == 'b.h5' and os.kill(os.getpid(), 11)"
    monkeypatch.setattr(h5_guard, "CHILD", child(die, "h5_child.main('5')"))
    with pytest.raises(InputRefused, match=r"b\.h5: is damaged: it crashed HDF5 \(status -11\)"):
        check_files(paths)


@pytest.mark.parametrize("busy", ["while True: pass", "time.sleep(60)"])
def test_one_that_keeps_it_busy_is_refused(busy: str, paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    sooner = ["import signal", "alarm = signal.alarm", "signal.alarm = lambda seconds: alarm(seconds // 2)"]
    lines = [*sooner, "def check(path):", f"    {busy}", "h5_child.check = check", "h5_child.main(sys.argv[1])"]
    monkeypatch.setattr(h5_guard, "CHILD", child(*lines))
    with pytest.raises(InputRefused, match=r"a\.h5: HDF5 did not finish reading it within 1 seconds"):
        check_files(paths, seconds=1)


def test_memory_is_limited(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h5_guard, "CHILD", child("h5_child.check = lambda path: bytes(9 << 30)", "h5_child.main('5')"))
    with pytest.raises(InputRefused, match=r"a\.h5: cannot be read as HDF5: MemoryError"):
        check_files(paths)


def test_a_dataset_is_looked_at_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsimple.data.dataset.read_layout", lambda path: pytest.fail(f"opened {path}"))
    config = make_dataset(tmp_path)
    (tmp_path / "data" / "1.h5").write_bytes(b"")
    with pytest.raises(InputRefused, match=r"1\.h5: cannot be read as HDF5"):
        MultimodalDataset(config)


def test_what_it_finds_is_what_it_says(path: Path) -> None:
    assert h5_child.finding(path) is None
    assert read_layout(path)[1] == 3
    path.write_bytes(b"no HDF5")
    assert str(h5_child.finding(path)).startswith("cannot be read as HDF5: ")
