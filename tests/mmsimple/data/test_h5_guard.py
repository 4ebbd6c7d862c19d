"""Training files that could lead HDF5 astray are refused by name, by a process that may die of them."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
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


def many(file: h5py.File) -> None:
    """A million samples in one chunk of some kB each."""
    for name, shape in (("data", (5, 1)), ("img_data_loc", (1, 1)), ("img_path", (1,))):
        del file[name]
        kind = "S4" if name == "img_path" else "i4"
        found = file.create_dataset(name, (10**6, *shape), kind, chunks=(10**6, *shape), compression="gzip")
        chunk(file, name, (0, *(0 for _ in shape)), bytes(found.size * 4))


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
        r"data has 1\.3 GB in one chunk; a file of .* kB may have 33\.[0-9] MB",
    ),
    "a huge sample in small chunks": (
        lambda file: unwritten(file, "data", (1, 5, 1 << 26), chunks=(1, 5, 1 << 20)),
        r"data has 1\.3 GB in one sample; a file of .* kB may have 33\.[0-9] MB",
    ),
    "names that burst": (
        lambda file: (
            file.pop("img_path"),
            file.create_dataset("img_path", (10**6, 1), "S4000", chunks=(10**5, 1), compression="gzip"),
        ),
        r"img_path has 400\.0 MB in one chunk",
    ),
    "more chunks than bytes": (
        lambda file: unwritten(file, "img_data_loc", (10**8, 2, 4), chunks=(1, 2, 4)),
        r"img_data_loc claims 100,000,000 chunks in [0-9,]+ bytes",
    ),
    "more samples than bytes": (many, r"claims 1,000,000 samples in [0-9,]+ bytes"),
    "a chunk over the end": (
        lambda file: replaced(file, "data", chunks=(3, 5, 16)),
        "data has a chunk that reaches over the end of the file",
    ),
    "all in one piece over the end": (
        lambda file: replaced(file, "data", chunks=None),
        # The newest releases of HDF5 see it, others do not.
        "(data reaches over the end of the file|.*invalid dataset size)",
    ),
    "a name that is elsewhere": (lambda file: None, "cannot be read as HDF5: .*"),
    "floats": (lambda file: replaced(file, "data", dtype="f4"), "data is of no type that is read"),
    "20 bits": (narrow, "data is of no type that is read"),
    "no strings": (lambda file: unwritten(file, "img_path", (3, 2)), "img_path is of no type that is read"),
    "lists for strings": (
        lambda file: (file.pop("img_path"), file.create_dataset("img_path", (3, 2), h5py.vlen_dtype("i4"))),
        "img_path is of no type that is read",
    ),
}


def moved(path: Path, name: str) -> None:
    """Have the header of a dataset, or its table of chunks, say that it lies where the file is about to end."""
    with h5py.File(path) as file:
        found = file[name]
        place = found.id.get_chunk_info(0).byte_offset if found.chunks else found.id.get_offset()
    content = path.read_bytes()
    at = struct.pack("<Q", place)
    assert at in content
    path.write_bytes(content.replace(at, struct.pack("<Q", len(content) - 8)))


def led_astray(path: Path, name: str) -> None:
    """Have the first name of a dataset, a reference, lead out of the file."""
    with h5py.File(path) as file:
        at = file[name].id.get_offset()
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, at + 4, len(content) + 512)
    path.write_bytes(content)


# What HDF5 itself would not write: it is done to the bytes.
PATCHES: dict[str, tuple[Callable[[Path, str], None], str]] = {
    "a chunk over the end": (moved, "data"),
    "all in one piece over the end": (moved, "data"),
    "a name that is elsewhere": (led_astray, "img_path"),
}


@pytest.mark.parametrize(("name", "change", "said"), [(name, *each) for name, each in REFUSED.items()], ids=REFUSED)
def test_what_leads_astray_is_refused(name: str, change: Change, said: str, path: Path) -> None:
    with h5py.File(path, "r+") as file:
        change(file)
    if name in PATCHES:
        patch, dataset = PATCHES[name]
        patch(path, dataset)
    with pytest.raises(InputRefused, match=rf"a\.h5: .*{said}") as caught:
        check_files([path])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("place", "fits"), [(40, True), (41, False)])
def test_a_piece_has_to_end_where_the_file_does_whatever_hdf5_lets_through(place: int, fits: bool) -> None:
    kind = SimpleNamespace(get_size=lambda: 4, get_class=lambda: h5py.h5t.INTEGER)
    created = SimpleNamespace(get_layout=lambda: h5py.h5d.CONTIGUOUS)
    found = SimpleNamespace(get_create_plist=lambda: created, get_offset=lambda: place, get_type=lambda: kind)
    with nullcontext() if fits else pytest.raises(InputRefused, match="data reaches over the end of the file"):
        h5_child._check_place(SimpleNamespace(id=found, shape=(3, 5)), "data", 100)


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


def test_nor_is_one_whose_end_is_missing(path: Path) -> None:
    """All of it is there, but what says that it is what was written."""
    with h5py.File(path, "r+") as file:
        content = file["data"][1].tobytes()
        file["data"].id.write_direct_chunk((1, 0, 0), zlib.compress(content)[:-4])
    check_files([path])
    with pytest.raises(InputRefused, match=r"sample 1: cannot be read as HDF5: a chunk holds 320 bytes, or is cut off"):
        Files().read(path, 1)


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
    sooner = ["import signal", "alarm = signal.alarm", "signal.alarm = lambda seconds: alarm(seconds // 20)"]
    lines = [*sooner, "def check(path):", f"    {busy}", "h5_child.check = check", "h5_child.main(sys.argv[1])"]
    monkeypatch.setattr(h5_guard, "CHILD", child(*lines))
    with pytest.raises(InputRefused, match=r"a\.h5: HDF5 did not finish reading it within (1|20) seconds"):
        check_files(paths, seconds=1)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="off Linux memory is not bounded")
@pytest.mark.parametrize(("mib", "passes"), [(100, True), (140, False)])
def test_memory_is_limited(mib: int, passes: bool, paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    check = f"h5_child.check = lambda path: bytes({mib} << 20) and None"
    monkeypatch.setattr(h5_guard, "CHILD", child(check, "h5_child.main('5')"))
    if passes:
        check_files(paths)
    else:
        with pytest.raises(InputRefused, match=r"a\.h5: takes more memory to read than any sound file of its size"):
            check_files(paths)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="off Linux memory is not bounded")
def test_a_larger_file_may_take_more(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    os.truncate(paths[1], 4 << 20)
    check = "h5_child.check = lambda path: bytes(200 << 20) and None if path.name == 'b.h5' else None"
    monkeypatch.setattr(h5_guard, "CHILD", child(check, "h5_child.main('5')"))
    check_files(paths)


def test_a_hard_limit_stays_and_the_soft_one_is_below_it(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user may not raise it, and where that fails there would be no limit at all."""
    lines = [
        *("import resource", "resource.setrlimit(resource.RLIMIT_CPU, (50, 50))"),
        *("def check(path):", "    raise h5_child.InputRefused(str(resource.getrlimit(resource.RLIMIT_CPU)))"),
        *("h5_child.check = check", "h5_child.main('120')"),
    ]
    monkeypatch.setattr(h5_guard, "CHILD", child(*lines))
    with pytest.raises(InputRefused, match=r"a\.h5: \([45], 50\)"):
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
