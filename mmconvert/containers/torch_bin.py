"""torch's checkpoints (`.bin`, `.pt`, `.pth`), read without torch and without running anything.

`torch.save` writes a zip whose entries are stored as they are: `<root>/data.pkl` describes the tensors,
`<root>/data/<n>` holds the bytes of one storage, `<root>/byteorder` says `little`. So a tensor is a span of the file,
or a strided view of one. Source: caffe2/serialize/inline_container.h in pytorch; its writer always sets the zip flag
for data descriptors.
"""

from __future__ import annotations

import mmap
import os
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mmconvert.containers.shards import MAX_TENSORS, check_key, read_shards
from mmconvert.containers.torch_pickle import View, read_pickle
from mmconvert.documents import file_size
from mmconvert.errors import InputRefused
from mmconvert.sources import FILES, FileSpan, Source, TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

# 20,000 tensors take 2.5 MB in the pickle, and 1.3 MB in the zip's directory, each entry of which takes a kB in memory.
MAX_PICKLE_BYTES = 4 << 20
MAX_DIRECTORY_BYTES = 4 << 20
# Tied weights share their bytes by twos and threes. More would make much of a small file: each is written by itself.
MOST_SHARED = 8
# Where a training script keeps the weights among other things, and which of those say nothing about the model.
WRAPPERS = ("state_dict", "model")
COUNTERS = frozenset({"epoch", "step", "global_step", "iteration"})

_SIGNATURE = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 0x1 | 0x40
_UTF8 = 0x800


@dataclass(frozen=True)
class Strided:
    """A tensor whose elements lie apart, `strides` elements from one to the next, the first at byte `offset` of a file.

    A read maps the file, and copies no more than what was asked for.
    """

    path: Path
    offset: int
    itemsize: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        import numpy as np

        elements = self._map()
        for buffer in buffers:
            end = start + len(buffer)
            first = start // self.itemsize
            # `flat` counts in row-major order whatever the strides, and a slice of it is a copy of those elements only.
            block = elements.flat[first : -(-end // self.itemsize)].view(np.uint8)
            buffer[:] = block[start - first * self.itemsize :][: len(buffer)].data
            start = end

    def _map(self) -> NDArray[Any]:
        """The tensor as a read-only array upon the mapped file; nothing is read yet."""
        import numpy as np

        # A map starts at a multiple of the page size, or of something like it.
        skipped = self.offset % mmap.ALLOCATIONGRANULARITY
        length = skipped + _extent(self.shape, self.strides) * self.itemsize
        with FILES.descriptor(self.path) as fd:
            # Reading a map past the end of its file would kill the process.
            if os.fstat(fd).st_size < self.offset - skipped + length:
                raise InputRefused(f"{self.path}: ends before a tensor that its data.pkl promises")
            mapped = mmap.mmap(fd, length, access=mmap.ACCESS_READ, offset=self.offset - skipped)
        elements = np.frombuffer(mapped, f"<u{self.itemsize}", offset=skipped)
        strides = tuple(stride * self.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(elements, self.shape, strides, writeable=False)


def read_file(path: Path, name: str = "") -> dict[str, TensorRef]:
    """The tensors of one file in its own order; `name` is what their `file` says, else the file's own name.

    Weights may lie one level down, under `state_dict` or `model`. Only the descriptions are read. Raises
    `InputRefused`, naming file and key, for a file that is not torch's zip format, for anything but plain tensors in
    it, for tensors that do not lie within their storages, and for those that share them beyond `MOST_SHARED`.
    """
    storages, pickled = _read_zip(path)
    tensors: dict[str, TensorRef] = {}
    most, total = MOST_SHARED * path.stat().st_size, 0
    for key, view in _weights(read_pickle(pickled, path), path).items():
        check_key(key, path)
        source = _source(path, key, view, storages)
        tensors[key] = TensorRef(key, view.storage.dtype, view.shape, source, name or path.name)
        total += tensors[key].nbytes
        if total > most:
            raise InputRefused(
                f"{path}: {key!r}: shares its bytes with so many tensors that all of them would take more than "
                f"{MOST_SHARED} times the file; re-save it with tensors of their own"
            )
    return tensors


def read_index(path: Path) -> dict[str, TensorRef]:
    """The tensors of a sharded checkpoint, given its `pytorch_model.bin.index.json`; see `shards.read_shards`."""
    return read_shards(path, read_file)


def _weights(document: Any, path: Path) -> dict[str, View]:
    """The tensors of a state dict or of one in a wrapper, refusing by name what else is there."""
    if not isinstance(document, dict):
        raise InputRefused(f"{path}: holds no dict of tensors")
    wrapper = next((name for name in WRAPPERS if isinstance(document.get(name), dict)), None)
    weights = document if wrapper is None else document[wrapper]
    beside = {} if wrapper is None else {key: value for key, value in document.items() if key != wrapper}
    strangers = [key for key, value in weights.items() if not (isinstance(value, View) or _is_counter(key, value))]
    strangers += [key for key, value in beside.items() if not _is_counter(key, value)]
    if strangers:
        raise InputRefused(
            f"{path}: {str(strangers[0])[:80]!r}: is no tensor of the model; re-save the file with the weights alone"
        )
    return {str(key): value for key, value in weights.items() if isinstance(value, View)}


def _is_counter(key: object, value: object) -> bool:
    return key in COUNTERS and isinstance(value, (int, float))


def _source(path: Path, key: str, view: View, storages: dict[str, tuple[int, int]]) -> Source:
    """Where the elements of `view` lie, given each storage's (offset, length) in bytes."""
    what, itemsize = f"{path}: {key!r}:", view.storage.dtype.itemsize
    if view.storage.key not in storages:
        raise InputRefused(f"{what} its storage data/{view.storage.key[:80]} is missing")
    start, length = storages[view.storage.key]
    if length != view.storage.length * itemsize:
        promised = f"{view.storage.length:,} elements of {view.storage.dtype}"
        raise InputRefused(f"{what} its storage should have {promised}, but has {length:,} bytes")
    size = prod(view.shape)
    if view.offset + _extent(view.shape, view.strides) > view.storage.length:
        raise InputRefused(f"{what} reaches past the end of its storage")
    if size > view.storage.length:
        raise InputRefused(f"{what} repeats elements: it has {size:,}, and its storage {view.storage.length:,}")
    first = start + view.offset * itemsize
    if size == 0 or _is_contiguous(view.shape, view.strides):
        return FileSpan(path, first, size * itemsize)
    return Strided(path, first, itemsize, view.shape, view.strides)


def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """How many elements of the storage there are from a view's first to its last one."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        # The stride of a single row is never used, and torch leaves anything there.
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _read_zip(path: Path) -> tuple[dict[str, tuple[int, int]], bytes]:
    """Each storage's (offset, length) in bytes by its key, and the pickle that describes the tensors."""
    file_size(path)  # refuses pipes and folders
    try:
        with path.open("rb") as file:
            if file.read(4) != _SIGNATURE:
                raise InputRefused(
                    f"{path}: is not in torch's zip format; if torch (before 1.6) wrote it, re-save it with\n"
                    f"torch.save(torch.load(path, weights_only=True), path)"
                )
            with zipfile.ZipFile(_Bounded(file)) as archive:
                spans = _entries(archive, file, path)
            roots = [name.removesuffix("data.pkl") for name in spans if name.partition("/")[2] == "data.pkl"]
            if len(roots) != 1:
                raise InputRefused(f"{path}: is a zip file, but no checkpoint: it has no data.pkl, or several")
            root = roots[0]
            if f"{root}byteorder" in spans and _read(file, spans[f"{root}byteorder"], path) != b"little":
                raise InputRefused(f"{path}: is big-endian; re-save it on a little-endian machine")
            pickled = _read(file, spans[f"{root}data.pkl"], path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        raise InputRefused(f"{path}: is not a readable zip file: {error}") from error
    folder = f"{root}data/"
    return {name.removeprefix(folder): span for name, span in spans.items() if name.startswith(folder)}, pickled


class _Bounded:
    """A file as `zipfile` reads one, which reads the whole directory of a zip at once, however long it says it is."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, length: int = -1) -> bytes:
        if length > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(
                f"its directory has {length:,} bytes, and at most {MAX_DIRECTORY_BYTES:,} are read"
            )
        return self._read(length)


def _read(file: BinaryIO, span: tuple[int, int], path: Path) -> bytes:
    offset, length = span
    if length > MAX_PICKLE_BYTES:
        raise InputRefused(f"{path}: describes its tensors in {length:,} bytes; at most {MAX_PICKLE_BYTES:,} are read")
    file.seek(offset)
    return file.read(length)


def _entries(archive: zipfile.ZipFile, file: BinaryIO, path: Path) -> dict[str, tuple[int, int]]:
    """Each entry's (offset, length) in bytes by its name, where both of the zip's directories agree on it.

    `zipfile` knows the central directory only; the bytes lie where the local headers say, and those may lead elsewhere.
    """
    entries = archive.infolist()
    if len(entries) > MAX_TENSORS:
        raise InputRefused(f"{path}: has {len(entries):,} entries; at most {MAX_TENSORS:,} are read")
    spans: dict[str, tuple[int, int]] = {}
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        what = f"{path}: entry {entry.orig_filename[:80]!r}"
        file.seek(entry.header_offset)
        signature, _, flags, method, _, _, _, packed, length, name_length, extra_length = _LOCAL_HEADER.unpack(
            file.read(_LOCAL_HEADER.size)
        )
        if entry.compress_type or method or (entry.flag_bits | flags) & _ENCRYPTED:
            raise InputRefused(f"{what} is compressed or encrypted, which torch never does")
        name = file.read(name_length).decode("utf-8" if entry.flag_bits & _UTF8 else "cp437")
        # Zero where a descriptor follows the data, all ones where the real size is in the extra field.
        sizes = {packed, length} - {0, 0xFFFFFFFF}
        offset = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        if (
            signature != _SIGNATURE
            or name != entry.orig_filename
            or name in spans
            or entry.compress_size != entry.file_size
            or not sizes <= {entry.file_size}
            or entry.header_offset < end
            or offset + entry.file_size > archive.start_dir
        ):
            raise InputRefused(f"{what} is not where, or not what, the zip's directory says")
        spans[name] = offset, entry.file_size
        end = offset + entry.file_size
    return spans
