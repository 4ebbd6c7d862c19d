"""Reading a `.mdl` checkpoint of cerebras_pytorch (formats 0.1 to 0.5): what is in it, and where its bytes lie.

HDF5 itself runs in a process of its own (`mdl_child`), so that a file that crashes or hangs it is a refusal. That
process is believed nothing: every number is checked here, and only ranges of the file are read.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from mmconvert.containers.hdf5_process import WAITING, cpu_limit, environment
from mmconvert.containers.mdl_chunks import GZIP, LZ4, NO_FILTER, Chunk, Chunked
from mmconvert.containers.mdl_write import PLAIN
from mmconvert.dtypes import BY_NAME, DType
from mmconvert.errors import InputRefused
from mmconvert.releases import Release
from mmconvert.sources import FileSpan, Source, TensorRef
from mmconvert.units import human_bytes

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Bytes of answer, and what each byte of a larger file adds. A checkpoint of 70 B parameters, cut into some 500,000
# chunks, takes 20 to 30 MB.
ANSWER_LIMIT, ANSWER_SHARE = 4 << 20, 1 / 1024
CHILD = ("-P", "-m", "mmconvert.containers.mdl_child")
# Decoded at once by each worker, at most; a chunk may hold a thousand times the bytes that it takes in the file. The
# reference cuts its largest tensors so that a band takes some 30 MB.
BAND_LIMIT = 64 << 20
# The largest tensor that a file may hold as a shape and a value; it costs the file nothing and the target all of it.
FILL_LIMIT = 64 << 30


@dataclass(frozen=True)
class MdlFile:
    """What a `.mdl` file holds.

    `tensors` are the model's, without the leading `model.`, in the order of the state dict that was saved, or by name
    where a format before 0.5 does not tell it. `metadata` is the user-level `__metadata__` list, newest entry last.
    `set_aside` are the other leaves by their full key, and why they are not converted. `version` names the checkpoint
    format and the release that wrote the file. `saved_by` is that release, such as `1.9`, for formats before 0.5, of
    whose metadata only the strings right in an entry are known; it is None for 0.5, which any release's tools write.
    """

    tensors: dict[str, TensorRef]
    metadata: tuple[dict[str, Any], ...]
    set_aside: dict[str, str]
    version: str
    saved_by: str | None


@dataclass(frozen=True)
class Filled:
    """A tensor that is one value throughout, `element` being its bytes."""

    element: bytes

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            phase = start % len(self.element)
            repeated = self.element * (len(buffer) // len(self.element) + 2)
            buffer[:] = repeated[phase : phase + len(buffer)]
            start += len(buffer)


def read_file(path: Path, name: str = "", *, timeout: float | None = None) -> MdlFile:
    """Read what a `.mdl` file holds, from its headers alone; `name` is the `file` of its tensors.

    Raises `InputRefused` for a file that is no checkpoint, damaged, partially written or unsafe, or with which HDF5 is
    busier than with any sound one of its size, or for more than `timeout` seconds.
    """
    size = _size(path)
    with _understood(path):
        answer = _answer(path, _ask(path, size, timeout))
        tensors = [_tensor(entry, path, name, size) for entry in answer["tensors"]]
        return MdlFile(
            tensors={tensor.key: tensor for tensor in tensors},
            metadata=tuple(dict(entry) for entry in answer["metadata"]),
            set_aside={str(key): str(why) for key, why in answer["set_aside"].items()},
            version=f"checkpoint format {answer['format']}, cerebras_pytorch {answer['release'] or 'unknown'}",
            saved_by=None if answer["saved_by"] is None else str(Release.parse(answer["saved_by"])),
        )


def read_state(path: Path, *, timeout: float | None = None) -> dict[str, Any]:
    """Read all that a `.mdl` file of format 0.5 holds, from its headers alone, in the order of its nesting.

    Dictionaries of any kind are dicts, whose keys are strings, lists, tuples and sets are lists, and tensors are
    `TensorRef`s, whose keys are those on the way to them, joined with dots. Raises `InputRefused` as `read_file` does,
    and by its key for a leaf that is neither tensor nor None, a bool, int, float or string, such as a pickled object.
    """
    size = _size(path)
    with _understood(path):
        answer = _answer(path, _ask(path, size, timeout, "state"))
        state = _state(answer["state"], path, size)
        if not isinstance(state, dict):
            raise ValueError(f"a {type(state).__name__} where the whole belongs")
        return state


def _state(node: Any, path: Path, size: int) -> Any:
    """One node of a nesting, see `mdl_child.Checkpoint`, and what stands below it."""
    kind, held = node
    if kind == "dict":
        return {name: _state(child, path, size) for name, child in held.items()}
    if kind == "list":
        return [_state(child, path, size) for child in held]
    if kind == "tensor":
        return _tensor(held, path, str(path), size)
    if type(held) not in PLAIN:
        raise ValueError(f"a {type(held).__name__} where a value belongs")
    return held


def _answer(path: Path, text: bytes) -> dict[str, Any]:
    """The other process's answer. Raises `InputRefused` where it refused the file."""
    answer: dict[str, Any] = json.loads(text)
    if "refused" in answer:
        raise InputRefused(f"{path}: {_printable(answer['refused'])}")
    return answer


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Turn whatever an answer that makes no sense raises into `InputRefused`."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise InputRefused(f"{path}: cannot be made sense of: {_printable(repr(error))}") from error


def _size(path: Path) -> int:
    """The file's length, if it is a regular file that begins as HDF5 does."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputRefused(f"{path}: is not a regular file")
        with path.open("rb") as file:
            if file.read(len(SIGNATURE)) != SIGNATURE:
                raise InputRefused(f"{path}: is not an HDF5 file, or has a user block; a .mdl checkpoint is neither")
    except OSError as error:
        raise InputRefused(f"{path}: cannot be read: {error.strerror}") from error
    return status.st_size


def _ask(path: Path, size: int, timeout: float | None, *what: str) -> bytes:
    """Have the other process open the file of `size` bytes, and return its answer, about `what` of it."""
    busy = cpu_limit(size)
    patience = WAITING * busy if timeout is None else timeout
    longest = ANSWER_LIMIT + int(size * ANSWER_SHARE)
    with subprocess.Popen(
        [sys.executable, *CHILD, os.path.abspath(path), *what],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as child:
        late = threading.Event()

        def stop() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(patience, stop)
        timer.start()
        try:
            assert child.stdout is not None
            answer = child.stdout.read(longest + 1)
            if len(answer) > longest:
                raise InputRefused(f"{path}: describing it takes more than {human_bytes(longest)}; is it damaged?")
            status = child.wait()
        finally:
            timer.cancel()
            child.kill()
    if late.is_set() or status == -signal.SIGXCPU:
        seconds = f"{patience:g} seconds" if late.is_set() else f"{busy} seconds of processor time"
        raise InputRefused(f"{path}: HDF5 did not finish reading its headers within {seconds}; is it damaged?")
    if status:
        raise InputRefused(f"{path}: is damaged: it crashed HDF5 (status {status})")
    return answer


def _printable(text: str) -> str:
    """A message that came from a file, fit for one line of a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:500])


def _tensor(entry: dict[str, Any], path: Path, name: str, size: int) -> TensorRef:
    """One tensor of the answer, checked against the file's `size` in bytes."""
    key, dtype = str(entry["key"]), BY_NAME[entry["dtype"]]
    shape = tuple(map(_count, entry["shape"]))
    where = f"{path}: {_printable(key)}"
    nbytes = prod(shape) * dtype.itemsize
    source: Source
    if "fill" in entry:
        if nbytes > FILL_LIMIT:
            raise InputRefused(f"{where}: {nbytes} bytes of one value, more than {FILL_LIMIT >> 30} GiB")
        source = Filled(_element(entry["fill"], dtype))
    elif "offset" in entry:
        source = FileSpan(path, *_range(entry["offset"], nbytes, size, where))
    else:
        source = _chunked(entry, key, shape, dtype.itemsize, path, size)
    return TensorRef(key, dtype, shape, source, name)


def _chunked(entry: dict[str, Any], key: str, shape: tuple[int, ...], itemsize: int, path: Path, size: int) -> Chunked:
    where = f"{path}: {_printable(key)}"
    filters, steps = entry["filters"], tuple(map(_count, entry["chunk"]))
    if filters not in ([], [GZIP], [LZ4]):
        raise InputRefused(f"{where}: HDF5 filters {filters}; only LZ4 ({LZ4}) or gzip ({GZIP}) alone is read")
    cells = {}
    for *corner, offset, length, mask in entry["chunks"]:
        cell = tuple(_count(at) // step for at, step in zip(corner, steps, strict=True))
        cells[cell] = Chunk(*_range(offset, _count(length), size, where), _count(mask))
    chunks = tuple(cells[cell] for cell in sorted(cells))
    source = Chunked(path, key, shape, itemsize, steps, filters[0] if filters else NO_FILTER, chunks)
    inside = all(at < count for cell in cells for at, count in zip(cell, source.grid, strict=True))
    if not inside or len(cells) != prod(source.grid):
        raise InputRefused(
            f"{where}: only {len(cells)} of its {prod(source.grid)} chunks are there, or some are elsewhere"
        )
    if max(source.band_bytes, source.chunk_bytes, *(chunk.length for chunk in chunks)) > BAND_LIMIT:
        raise InputRefused(
            f"{where}: its chunks take more than {BAND_LIMIT >> 20} MiB to decode; save it in smaller ones"
        )
    return source


def _range(offset: Any, length: int, size: int, where: str) -> tuple[int, int]:
    """The range of `length` bytes from `offset`, if a file of `size` bytes has it."""
    if _count(offset) + length > size:
        raise InputRefused(f"{where}: lies at bytes {offset} to {offset + length}, but the file has {size}")
    return offset, length


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} where a size belongs")
    return value


def _element(value: Any, dtype: DType) -> bytes:
    """One number as an element; bfloat16 is rounded to nearest, ties to even, as torch rounds."""
    import numpy

    if not isinstance(value, (bool, int, float)):
        raise ValueError(f"{value!r} where a number belongs")
    if dtype.name != "bfloat16":
        return numpy.array(value, numpy.dtype(dtype.name).newbyteorder("<")).tobytes()
    bits = int(numpy.array(value, "<f4").view("<u4"))
    return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).to_bytes(2, "little")
