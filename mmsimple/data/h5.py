"""Training files in the layout of CS releases from 2.3 on: HDF5, with everything of a sample but its pictures.

Files of others go through `h5_guard` before anything here opens them.

Shape letters: N samples of a file, S positions of a text, I image slots of a sample, P tokens of an image.
"""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from mmconvert.documents import file_size
from mmconvert.errors import InputRefused

Ints = NDArray[np.int32]

# The rows of `data`, under the names that a batch has for them. `key_padding_mask` is 1 at padding.
ROWS = ("text_input_ids", "loss_mask", "labels", "key_padding_mask", "token_modality_idx")
# What stands in place of a picture's path in a slot without one.
NO_IMAGE = "None"
# Files that are open at a time: datasets may have more than a process may open.
MOST_OPEN = 64
# Names that are read at a time.
AT_ONCE = 1 << 12
# HDF5's number for its filter.
GZIP = 1


class Row(NamedTuple):
    """One sample: `data` [5, S], see `ROWS`; the pictures' paths [I]; and `positions` [I, P] of their tokens.

    A slot without picture has the path "None" and S, one past the end, for all its positions.
    """

    data: Ints
    paths: tuple[str, ...]
    positions: Ints


@dataclass(frozen=True)
class Layout:
    """What all files of a dataset have in common: S, I and P."""

    sequence_length: int
    image_slots: int
    image_tokens: int

    def __str__(self) -> str:
        return f"{self.sequence_length} positions, {self.image_slots} images of {self.image_tokens} tokens"


def file_bytes(layout: Layout, rows: Iterable[Row], count: int) -> bytes:
    """A file of so many samples, the same bytes every time; one row at a time is needed.

    It is made in memory, where its padding takes little room: HDF5 crashes where it cannot write.
    """
    length, slots, tokens = layout.sequence_length, layout.image_slots, layout.image_tokens
    made = BytesIO()
    with h5py.File(made, "w") as file:
        file.attrs["n_examples"] = count
        shape = (count, len(ROWS), length)
        data = file.create_dataset("data", shape, "i4", chunks=(1, *shape[1:]), compression="gzip")
        positions = file.create_dataset("img_data_loc", (count, slots, tokens), "i4")
        paths = np.full((count, slots), NO_IMAGE, dtype=object)
        for number, row in enumerate(rows):
            data[number], positions[number], paths[number] = row.data, row.positions, row.paths
        file.create_dataset("img_path", data=paths, dtype=h5py.string_dtype("utf-8"))
        file.create_dataset("has_img", data=(paths != NO_IMAGE).any(axis=1, keepdims=True), dtype=bool)
    return made.getvalue()


def read_layout(path: Path) -> tuple[Layout, int]:
    """What a file's samples look like, and how many there are. Raises InputRefused for what is no training file."""
    file_size(path)  # a pipe would never answer
    with _reading(path), h5py.File(path, "r") as file:
        data, names, positions = (dataset(file, name) for name in ("data", "img_path", "img_data_loc"))
        fits = data.ndim == 3 and data.shape[1] == len(ROWS) and names.ndim == 2 and positions.ndim == 3
        if not fits or names.shape != positions.shape[:2] or len(data) != len(names):
            shapes = ", ".join(str(each.shape) for each in (data, names, positions))
            wanted = "(N, 5, S), (N, I), (N, I, P)"
            raise InputRefused(f"data, img_path and img_data_loc have shapes {shapes}; they must be {wanted}")
        for each in (data, positions):
            if each.dtype.kind not in "iu":
                raise InputRefused(f"{each.name.strip('/')} is {each.dtype}; it must be of integers")
        return Layout(data.shape[2], *positions.shape[1:]), len(data)


def read_names(path: Path, numbers: range) -> Iterator[str]:
    """The pictures' paths of some samples, one after the other. Raises InputRefused for what cannot be read."""
    with _reading(path), h5py.File(path, "r") as file:
        found = file["img_path"]
        for rows in bands(found, numbers):
            each = found[rows.start : rows.stop].ravel()
            yield from (name for value in each if (name := _text(value)) != NO_IMAGE)


class Files:
    """Reads samples of files, which it opens when they are needed and in the process that needs them.

    A handle of HDF5 must not go from one process to another: neither by fork nor by spawn.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._open: OrderedDict[Path, h5py.File] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def read(self, path: Path, index: int) -> Row:
        """A sample of a file. Raises InputRefused for what cannot be read."""
        with _reading(path, index):
            file = self._file(path)
            data = read_row(file["data"], index)
            names = tuple(_text(each) for each in file["img_path"][index])
            row = Row(data, names, read_row(file["img_data_loc"], index))
            if (problem := _problem(row)) is not None:
                raise InputRefused(problem)
        return row

    def _file(self, path: Path) -> h5py.File:
        if self._process != os.getpid():
            # Left as they are: closing them here would close them in the process that they belong to, to HDF5.
            self._process, self._open = os.getpid(), OrderedDict()
        if path not in self._open:
            self._open[path] = h5py.File(path, "r")
            if len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        return self._open[path]


def _problem(row: Row) -> str | None:
    """What in a sample contradicts itself; nothing would notice it later."""
    length = row.data.shape[1]
    real = int((row.data[3] == 0).sum())
    if not real or row.data[3, :real].any():
        return "has no text, or padding in front of it"
    if row.data[0].min() < 0 or row.data[2].min() < 0:
        return "has a token id below 0"
    for slot, (path, places) in enumerate(zip(row.paths, row.positions, strict=True)):
        if path == NO_IMAGE and (places != length).any():
            return f"has positions of an image in slot {slot}, but no picture"
        if path != NO_IMAGE and not ((places >= 0) & (places < real)).all():
            return f"has positions of an image in slot {slot} that are not in its text"
    return None


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset that lies in the file itself: nothing that a file names elsewhere is opened."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
        raise InputRefused(f"has no dataset {name}; is it a training file that `mmsimple prepare` wrote?")
    found = file[name]
    if found.external or found.is_virtual:
        raise InputRefused(f"{name} lies in other files, which are not opened")
    return found


def read_row(found: h5py.Dataset, index: int) -> Ints:
    """One entry of the first dimension of a dataset of integers. Raises ValueError or zlib.error for a damaged one."""
    if found.chunks is None:
        return np.asarray(found[index], np.int32)
    row = np.empty(found.shape[1:], found.dtype)
    first, *steps = found.chunks
    for corner in corners(row.shape, steps):
        part = read_chunk(found, (index - index % first, *corner), row.itemsize)
        chunk = np.frombuffer(part, found.dtype).reshape(found.chunks)[index % first]
        place = row[tuple(slice(at, at + step) for at, step in zip(corner, steps, strict=True))]
        # A chunk at the edge reaches over it; the place ends there already.
        place[...] = chunk[tuple(map(slice, place.shape))]
    return row.astype(np.int32, copy=False)


def corners(shape: Sequence[int], steps: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Where the chunks begin that a dataset of a shape is cut into."""
    return product(*(range(0, size, step) for size, step in zip(shape, steps, strict=True)))


def bands(found: h5py.Dataset, numbers: range) -> Iterator[range]:
    """Some entries of the first dimension of a dataset, so many at a time as make sense to read at once."""
    # Whole chunks, which HDF5 would unpack again for each part of them.
    step = found.chunks[0] if found.chunks else max(1, AT_ONCE // max(1, prod(found.shape[1:])))
    for start in range(numbers.start - numbers.start % step, numbers.stop, step):
        yield range(max(start, numbers.start), min(start + step, numbers.stop))


def read_chunk(found: h5py.Dataset, corner: tuple[int, ...], itemsize: int) -> bytes:
    """A chunk of elements of so many bytes. Raises ValueError or zlib.error for a damaged one.

    It is unpacked here: of one that unpacks to less than it should, HDF5 gives what lies behind it in memory.
    """
    mask, stored = found.id.read_direct_chunk(corner)
    data: bytes = stored
    is_whole = True
    size = prod(found.chunks) * itemsize
    if found.compression is not None and not mask & 1:
        unpacking = zlib.decompressobj()
        # One byte more than allowed is enough to see that there is too much.
        data = unpacking.decompress(stored, size + 1)
        is_whole = unpacking.eof
    if len(data) != size or not is_whole:
        raise ValueError(f"a chunk holds {len(data)} bytes, or is cut off; it should have {size}")
    return data


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8")


@contextmanager
def _reading(path: Path, index: int | None = None) -> Iterator[None]:
    """Make whatever HDF5 raises one line that names the file, and the sample."""
    where = f"{path}: " if index is None else f"{path}: sample {index}: "
    try:
        yield
    except InputRefused as error:
        raise InputRefused(f"{where}{error}") from error
    except (OSError, RuntimeError, KeyError, ValueError, zlib.error) as error:
        words = str(error).partition("\n")[0][:200]
        raise InputRefused(f"{where}cannot be read as HDF5: {words}") from error
