"""The process that first opens training files: `python -m mmsimple.data.h5_child SECONDS`, with paths on stdin.

HDF5 was not made for hostile files: of some three thousand damaged ones, one crashed it and three hung it. So here,
under limits, every path through a file's structure is walked that reading it takes later: headers, the table of chunks,
all names of pictures. For each path of the JSON list on stdin one line of JSON is printed, null or why it is refused;
`h5_guard` starts it, and knows by the lines at which file it died.

What is left for the process that reads samples: to look up a chunk in a table that has been walked, to read bytes at
places that are inside the file, and names that have been read once. It unpacks chunks itself, see `h5.read_row`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from math import ceil, prod
from pathlib import Path
from typing import Any

import h5py
from h5py import h5d, h5t

from mmconvert.containers.hdf5_process import TOO_MUCH_MEMORY, WAITING, cpu_limit, limit_cpu, limit_memory
from mmconvert.errors import InputRefused
from mmconvert.units import human_bytes
from mmsimple.data.h5 import GZIP, bands, corners, dataset, read_chunk

# Bytes of address space beside what is taken by now: what a small file may take, what each byte of a larger one adds,
# and the most. 2,000 samples of 2,048 positions take 20 ms and a few MB.
MEMORY_LIMIT, MEMORY_SHARE, MOST_MEMORY = 128 << 20, 32, 8 << 30
# The most that a chunk, or one sample of a dataset, may come to once it is unpacked: whoever trains unpacks it for each
# sample. A sample of 128,000 positions takes 2.6 MB.
PIECE_LIMIT, PIECE_SHARE, MOST_PIECE = 32 << 20, 8, 1 << 30


def check(path: Path) -> None:
    """Raise InputRefused for a file that cannot safely be read, and for a damaged one whatever h5py raises."""
    with h5py.File(path, "r") as file:
        if file.userblock_size:
            raise InputRefused("an HDF5 file with a user block is no training file")
        size = os.stat(path).st_size
        for name in ("data", "img_data_loc", "img_path"):
            found = dataset(file, name)
            _check_type(found, name)
            if found.size:
                _check_place(found, name, size)
        # However well they are packed, samples of some text take more.
        if len(file["data"]) > size:
            raise InputRefused(f"claims {len(file['data']):,} samples in {size:,} bytes")
        # Unpacked here as h5.py does it, for HDF5 will unpack them, and reads on past the end of one that is short.
        names = file["img_path"]
        if names.size and names.chunks:
            for corner in corners(names.shape, names.chunks):
                read_chunk(names, corner, _itemsize(names))
        # All of them, some at a time: each may be a reference to somewhere in the file.
        if names.size:
            for rows in bands(names, range(len(names))):
                names[rows.start : rows.stop]


def _check_type(found: Any, name: str) -> None:
    """Strings, or integers as numpy has them: others HDF5 converts, and what is of variable length leads on."""
    stored = found.id.get_type()
    if name == "img_path":
        fits = stored.get_class() == h5t.STRING
    else:
        fits = stored.get_class() == h5t.INTEGER and stored == h5t.py_create(found.dtype, logical=True)
    if found.shape is None or not fits:
        raise InputRefused(f"{name} is of no type that is read")


def _check_place(found: Any, name: str, size: int) -> None:
    """All of a dataset lies inside a file of so many bytes."""
    created = found.id.get_create_plist()
    layout, itemsize = created.get_layout(), _itemsize(found)
    if layout == h5d.CONTIGUOUS and found.id.get_offset() is not None:
        if found.id.get_offset() + prod(found.shape) * itemsize > size:
            raise InputRefused(f"{name} reaches over the end of the file")
        return
    if layout != h5d.CHUNKED:
        raise InputRefused(f"{name} was never written, or lies in the file's headers")
    filters = [created.get_filter(index)[0] for index in range(created.get_nfilters())]
    if filters not in ([], [GZIP]):
        raise InputRefused(f"{name} went through the HDF5 filters {filters}; only gzip ({GZIP}) is read")
    largest = min(PIECE_LIMIT + PIECE_SHARE * size, MOST_PIECE)
    for what, shape in (("chunk", found.chunks), ("sample", found.shape[1:])):
        if (piece := prod(shape) * itemsize) > largest:
            raise InputRefused(
                f"{name} has {human_bytes(piece)} in one {what}; a file of {human_bytes(size)} may have "
                f"{human_bytes(largest)}"
            )
    wanted = prod(-(-length // step) for length, step in zip(found.shape, found.chunks, strict=True))
    # Each takes a byte at least, and more in their table.
    if wanted > size:
        raise InputRefused(f"{name} claims {wanted:,} chunks in {size:,} bytes")
    there: set[tuple[int, ...]] = set()

    def take(chunk: Any) -> None:
        if chunk.byte_offset + chunk.size > size:
            raise InputRefused(f"{name} has a chunk that reaches over the end of the file")
        if not filters and chunk.size != prod(found.chunks) * itemsize:
            raise InputRefused(f"{name} has a chunk of another size than its chunks have")
        there.add(tuple(chunk.chunk_offset))

    found.id.chunk_iter(take)
    if there != set(corners(found.shape, found.chunks)):
        raise InputRefused(f"{name} has not all of its chunks, or some are elsewhere")


def _itemsize(found: Any) -> int:
    """The bytes that an element takes in the file."""
    stored = found.id.get_type()
    if stored.get_class() == h5t.STRING and stored.is_variable_str():
        # A length, the address of a heap and a number there.
        address: int = found.file.id.get_create_plist().get_sizes()[0]
        return 4 + address + 4
    size: int = stored.get_size()
    return size


def finding(path: Path) -> str | None:
    """Why a file is refused; None for one that is not."""
    try:
        check(path)
    except InputRefused as error:
        return str(error)
    except MemoryError:
        return TOO_MUCH_MEMORY
    except Exception as error:  # whatever HDF5 makes of a damaged file is a finding about the file
        return f"cannot be read as HDF5: {str(error) or type(error).__name__}"
    return None


def main(seconds: str) -> None:
    for path in map(Path, json.load(sys.stdin)):
        _limit(os.stat(path).st_size, int(seconds))
        print(json.dumps(finding(path)), flush=True)


def _limit(size: int, most: int) -> None:
    """What a file of `size` bytes may take from now on, of the processor at most so many seconds; then the system ends
    this process, or refuses it memory.
    """
    seconds = min(cpu_limit(size), most)
    limit_cpu(ceil(time.process_time()) + seconds)
    # Where nothing is computed, such as a disk that does not answer.
    signal.alarm(WAITING * seconds)
    limit_memory(min(MEMORY_LIMIT + MEMORY_SHARE * size, MOST_MEMORY))


if __name__ == "__main__":
    main(*sys.argv[1:])
