"""Training files: what lies in them, read lazily in whatever process reads, and written the same every time."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmconvert.errors import InputRefused
from mmsimple.data import h5
from mmsimple.data.h5 import Files, Layout, Row, read_layout
from tests.mmsimple.data.worked_example import A, B, C, file_of, write_with_h5py


def same(found: Row, expected: Row) -> bool:
    arrays = zip((found.data, found.positions), (expected.data, expected.positions), strict=True)
    return found.paths == expected.paths and all(np.array_equal(x, y) for x, y in arrays)


@pytest.fixture(params=["ours", "h5py's own"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The worked example, in a file of each writer."""
    if request.param == "ours":
        (tmp_path / "a.h5").write_bytes(file_of([A, B]))
    else:
        write_with_h5py(tmp_path / "a.h5", [A, B])
    return tmp_path / "a.h5"


def test_a_file_of_the_worked_example_reads_right(path: Path) -> None:
    assert read_layout(path) == (Layout(16, 2, 4), 2)
    files = Files()
    assert same(files.read(path, 0), A)
    assert same(files.read(path, 1), B)
    assert files.read(path, 0).data.dtype == np.int32


def test_ours_matches_the_layouts_description(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(file_of([A, C]))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["n_examples"] == 2
        assert (file["data"].shape, file["data"].dtype) == ((2, 5, 16), np.int32)
        assert (file["data"].chunks, file["data"].compression) == ((1, 5, 16), "gzip")
        assert (file["img_data_loc"].shape, file["img_data_loc"].dtype) == ((2, 2, 4), np.int32)
        assert file["img_path"].shape == (2, 2)
        assert h5py.check_string_dtype(file["img_path"].dtype).encoding == "utf-8"
        assert (file["has_img"].shape, file["has_img"].dtype) == ((2, 1), bool)
        assert file["has_img"][:].tolist() == [[True], [False]]


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        (tmp_path / name).write_bytes(file_of([A, B, C]))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_paths_may_be_of_any_script(tmp_path: Path) -> None:
    odd = A._replace(paths=("größe/图.png", "None"))
    (tmp_path / "a.h5").write_bytes(file_of([odd]))
    assert Files().read(tmp_path / "a.h5", 0).paths == odd.paths


def test_files_that_are_open_can_be_read_after_a_fork(path: Path) -> None:
    files = Files()
    files.read(path, 0)
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[Row] = context.Queue()
    child = context.Process(target=lambda: answers.put(files.read(path, 1)))
    child.start()
    assert same(answers.get(timeout=60), B)
    child.join()
    assert child.exitcode == 0
    assert same(files.read(path, 0), A)


def test_a_fork_opens_files_anew(path: Path) -> None:
    files = Files()
    files.read(path, 0)
    handle = files._open[path].id.id
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[bool] = context.Queue()

    def look() -> None:
        files.read(path, 0)
        answers.put(files._process == os.getpid() and files._open[path].id.id != handle)

    child = context.Process(target=look)
    child.start()
    assert answers.get(timeout=60)
    child.join()


def test_files_that_are_open_can_be_sent_to_a_spawned_process(path: Path) -> None:
    files = Files()
    files.read(path, 0)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert same(pool.submit(files.read, path, 1).result(timeout=60), B)


def test_handles_do_not_travel(path: Path) -> None:
    files = Files()
    files.read(path, 0)
    assert same(pickle.loads(pickle.dumps(files)).read(path, 1), B)


def test_only_so_many_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h5, "MOST_OPEN", 2)
    paths = [tmp_path / f"{number}.h5" for number in range(4)]
    for path, row in zip(paths, (A, B, C, A), strict=True):
        path.write_bytes(file_of([row]))
    files = Files()
    for _ in range(2):
        assert all(same(files.read(path, 0), row) for path, row in zip(paths, (A, B, C, A), strict=True))
    assert len(files._open) == 2
    assert sum(bool(each) for each in files._open.values()) == 2


# --- what is refused ------------------------------------------------------------------------------------------------


def no_data(file: h5py.File) -> None:
    del file["data"]


def no_rows(file: h5py.File) -> None:
    del file["data"]
    file["data"] = np.zeros((2, 4, 16), np.int32)


def other_count(file: h5py.File) -> None:
    del file["img_path"]
    file["img_path"] = np.array([["a", "b"]] * 3, dtype=h5py.string_dtype())


def floats(file: h5py.File) -> None:
    del file["data"]
    file["data"] = np.zeros((2, 5, 16), np.float32)


def elsewhere(file: h5py.File) -> None:
    del file["data"]
    file["data"] = h5py.ExternalLink("/etc/passwd", "data")


def virtual(file: h5py.File) -> None:
    del file["data"]
    layout = h5py.VirtualLayout((2, 5, 16), np.int32)
    layout[:] = h5py.VirtualSource("other.h5", "data", (2, 5, 16), np.int32)
    file.create_virtual_dataset("data", layout)


def external(file: h5py.File) -> None:
    del file["data"]
    file.create_dataset("data", (2, 5, 16), np.int32, external=[("/etc/passwd", 0, 640)])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_data, "has no dataset data"),
        (no_rows, r"shapes \(2, 4, 16\), \(2, 2\), \(2, 2, 4\); they must be"),
        (other_count, r"\(3, 2\)"),
        (floats, "data is float32; it must be of integers"),
        (elsewhere, "has no dataset data"),
        (virtual, "data lies in other files"),
        (external, "data lies in other files"),
    ],
)
def test_what_is_no_training_file_is_refused(spoil: Callable[[h5py.File], None], said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(file_of([A, B]))
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(InputRefused, match=rf"^{path}: .*{said}"):
        read_layout(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.h5")
    with pytest.raises(InputRefused, match="is not a regular file"):
        read_layout(tmp_path / "a.h5")


def contradict(row: Row, **values: Any) -> Row:
    data, positions, paths = row.data.copy(), row.positions.copy(), list(row.paths)
    for name, value in values.items():
        match name:
            case "place":
                positions[0, 0] = value
            case "path":
                paths[0] = value
            case "token":
                data[0, 0] = value
            case "padding":
                data[3, value] = 1
    return Row(data, tuple(paths), positions)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"place": -5}, "in slot 0 that are not in its text"),
        ({"place": 10}, "in slot 0 that are not in its text"),
        ({"place": 10**6}, "in slot 0 that are not in its text"),
        ({"path": "None"}, "positions of an image in slot 0, but no picture"),
        ({"token": -1}, "a token id below 0"),
        ({"padding": slice(0, 3)}, "padding in front of it"),
        ({"padding": slice(0, 16)}, "has no text"),
    ],
)
def test_a_sample_that_contradicts_itself_is_refused(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(file_of([contradict(A, **values)]))
    with pytest.raises(InputRefused, match=f"a\\.h5: sample 0: .*{said}"):
        Files().read(tmp_path / "a.h5", 0)


def test_a_file_that_is_no_hdf5_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"no such thing")
    with pytest.raises(InputRefused, match="cannot be read as HDF5") as caught:
        read_layout(tmp_path / "a.h5")
    assert "\n" not in str(caught.value)


def test_a_damaged_sample_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(file_of([A, B]))
    with h5py.File(path) as file:
        chunk = file["data"].id.get_chunk_info(1)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    files = Files()
    assert same(files.read(path, 0), A)
    with pytest.raises(InputRefused, match="sample 1: cannot be read as HDF5"):
        files.read(path, 1)


@pytest.mark.parametrize("chunks", [None, (2, 1), (4, 2)])
@pytest.mark.parametrize("numbers", [range(0), range(5), range(1, 4), range(3, 5)])
def test_names_are_read_some_at_a_time(
    chunks: tuple[int, int] | None, numbers: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h5, "AT_ONCE", 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        names = np.array([[f"{number}.png", "None"] for number in range(5)], dtype=h5py.string_dtype())
        bands = list(h5.bands(file.create_dataset("img_path", data=names, chunks=chunks), numbers))
    assert [number for band in bands for number in band] == list(numbers)
    assert max(map(len, bands), default=0) <= 4
    assert list(h5.read_names(tmp_path / "a.h5", numbers)) == [f"{number}.png" for number in numbers]
