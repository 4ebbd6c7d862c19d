"""Laying out a `.mdl` checkpoint: an HDF5 file as `cerebras.pytorch.load` 2.10 reads it (checkpoint format 0.5).

HDF5 writes the file into memory, where its tensors take no room: every dataset is contiguous, gets its place when it is
created and is never filled. What HDF5 did write, the metadata, is the frame of the layout. So the library, which
crashes the process when a write hits a full disk, never sees the disk, and the tensors move at the speed of a copy.

What is written is what cerebras_pytorch 2.10 writes, found by dumping its files, less what its loader ignores: chunks,
compression, and the nesting repeated for people in the first member of each `__spec__`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mmconvert.containers.layout import FileLayout, Outline, Slot
from mmconvert.errors import InputRefused

if TYPE_CHECKING:
    import numpy

FORMAT_VERSION = 0.5
# The release whose files these are like, as its `save` would write it. Nobody reads it back.
CSTORCH_VERSION = "2.10.0"
# The element types that the format can hold, and the codes that its writer gives them in `rtfx_dtypes`.
RTFX_CODES = {
    "bool": 1,
    "int16": 3,
    "int32": 4,
    "int64": 5,
    "uint8": 6,
    "uint16": 7,
    "uint32": 8,
    "uint64": 9,
    "float16": 10,
    "float32": 11,
    "float64": 12,
    "bfloat16": 15,
}
# Tensors start at multiples of this many bytes, so that they can be mapped as arrays.
ALIGNMENT = 8


def lay_out(name: str, outlines: Sequence[Outline], metadata: Mapping[str, Any]) -> FileLayout:
    """Lay out the checkpoint file `name` that holds `{"model": {key: tensor}, "__metadata__": [metadata]}`.

    `metadata` is JSON-like: mappings with string keys, lists, strings, numbers, None. The same arguments give the same
    bytes, whenever and wherever. Raises `InputRefused` for what the format cannot hold: an element type, a key, or two
    entries of `metadata` whose paths, joined with dots, are the same.
    """
    for outline in outlines:
        _check(outline)
    state = {"model": {outline.key: outline for outline in outlines}, "__metadata__": [metadata]}
    pages = _Pages()
    slots = _write(pages, outlines, state)
    return FileLayout(name, pages.size, tuple(_frame(pages, slots.values())), slots)


def _check(outline: Outline) -> None:
    if outline.dtype.name not in RTFX_CODES:
        raise InputRefused(
            f"{outline.key}: a .mdl file cannot hold {outline.dtype}; use --container safetensors to write it as it is"
        )
    if not outline.key or "/" in outline.key or not outline.key.isprintable():
        raise InputRefused(f"{outline.key!r}: a .mdl file cannot hold a tensor of this name")


def _write(pages: _Pages, outlines: Sequence[Outline], state: Mapping[str, Any]) -> dict[str, Slot]:
    """Have HDF5 write everything but the tensors' bytes into `pages`, and return where those belong."""
    from h5py import h5f, h5fd, h5p

    # Time stamps would make two runs differ; the root group has its own switch for them.
    creation = h5p.create(h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5fd.fileobj_driver, pages)
    # From 1.8 on, the root object's attributes, one per leaf, are indexed; before, adding n of them costs n squared.
    # "latest" would be too new: HDF5 2.x then writes what 1.14, inside cerebras_pytorch 2.10, cannot read.
    access.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_V18)
    access.set_alignment(1, ALIGNMENT)
    file = h5f.create(b"checkpoint.mdl", h5f.ACC_TRUNC, fapl=access, fcpl=creation)
    try:
        slots = {outline.key: _add_tensor(file, outline) for outline in outlines}
        _describe(file, state)
    finally:
        file.close()
    return slots


def _add_tensor(file: Any, outline: Outline) -> Slot:
    """Make room for a tensor, and describe it in the attributes of its dataset."""
    import numpy
    from h5py import h5d

    # HDF5 has no bfloat16; cerebras_pytorch keeps its bits in an int16.
    stored = numpy.dtype("int16" if outline.dtype.name == "bfloat16" else outline.dtype.name)
    name = f"model.{outline.key}".encode()
    dataset = h5d.create(file, name, _hdf5_type(stored), _space(outline.shape), _placed_unfilled())
    for attribute, value in _described(outline).items():
        _add_attribute(dataset, attribute, value)
    # An empty tensor has no place in the file.
    return Slot(dataset.get_offset() or 0, outline.nbytes)


def _describe(file: Any, state: Mapping[str, Any]) -> None:
    """Write the attributes of the root: one for each leaf, the nesting, and last that all went well."""
    seen = set()
    for key, described in _leaves(state):
        if key in seen:
            raise InputRefused(f"{key}: two entries have this path, which a .mdl file cannot tell apart")
        seen.add(key)
        document = {
            "__spec__": [None, _treespec({key: None})],
            "__objects__": [key],
            f"{key}.__metadata__": described,
        }
        _add_attribute(file, f"{key}.__metadata__", json.dumps(document))
    _add_attribute(file, "__version__", FORMAT_VERSION)
    _add_attribute(file, "__cstorch_version__", CSTORCH_VERSION)
    _add_attribute(file, "__spec__", json.dumps([None, _treespec(state)]))
    _add_attribute(file, "__SUCCESS__", True)


def _add_attribute(owner: Any, name: str, value: Any) -> None:
    """Write a bool, a number, a string or a list of them as h5py would, but through its faster low level."""
    import h5py
    import numpy

    data = numpy.array(value)
    if data.dtype.kind == "U":
        data = data.astype(h5py.string_dtype())
    h5py.h5a.create(owner, name.encode(), _hdf5_type(data.dtype), _space(data.shape)).write(data)


@lru_cache
def _hdf5_type(dtype: numpy.dtype[Any]) -> Any:
    """The type in the file that h5py gives a numpy type; objects are strings (UTF-8, of any length)."""
    import h5py

    return h5py.h5t.py_create(h5py.string_dtype() if dtype.kind == "O" else dtype, logical=True)


@lru_cache
def _space(shape: tuple[int, ...]) -> Any:
    from h5py import h5s

    return h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)


@lru_cache
def _placed_unfilled() -> Any:
    """How datasets are created: in one piece, placed at once, never filled, without time stamps."""
    from h5py import h5d, h5p

    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_layout(h5d.CONTIGUOUS)
    plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    return plist


def _described(outline: Outline) -> dict[str, Any]:
    """What the reference says of a tensor, in the JSON of its leaf and again in the attributes of its dataset."""
    return {
        "__TORCH__": True,
        "shapes": [list(outline.shape)],
        "dtypes": [f"torch.{outline.dtype}"],
        "rtfx_dtypes": [RTFX_CODES[outline.dtype.name]],
        "__TYPE__": "TorchTensorSerializer",
        "__NUMPY__": True,
        "compressed": False,
    }


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every leaf below `node`, as its flattened key and its description."""
    if isinstance(node, (Mapping, list)):
        items = node.items() if isinstance(node, Mapping) else enumerate(node)
        for name, child in items:
            yield from _leaves(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, Outline):
        yield key, _described(node)
    elif node is None:
        yield key, {"__TYPE__": "NoneSerializer", "__NONE__": True}
    elif isinstance(node, str):
        yield key, {"string_value": node, "__TYPE__": "StringSerializer", "__NONE__": True}
    else:
        yield key, {"scalar_value": node, "__TYPE__": "ScalarSerializer", "__NONE__": True}


def _treespec(state: Any) -> str:
    """The nesting of `state` as `torch.utils._pytree.treespec_dumps` writes it (protocol 1)."""
    return json.dumps([1, _nesting(state)])


def _nesting(node: Any) -> dict[str, Any]:
    if isinstance(node, Mapping):
        context = json.dumps(list(node))
        return {"type": "builtins.dict", "context": context, "children_spec": [_nesting(v) for v in node.values()]}
    if isinstance(node, list):
        return {"type": "builtins.list", "context": "null", "children_spec": [_nesting(v) for v in node]}
    return {"type": None, "context": None, "children_spec": []}


class _Pages:
    """A file in memory, as h5py's file-object driver wants it, that keeps only the pages that were written.

    The rest reads as zeros and takes no room, so a checkpoint of any size is laid out in a few megabytes.
    """

    PAGE = 4096

    def __init__(self) -> None:
        self.size = 0
        self._position = 0
        self._pages: dict[int, bytearray] = {}

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Nothing is held back."""

    def truncate(self, size: int) -> int:
        self.size = size
        return size

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        view[:] = self.read(self._position, len(view))
        return self._advance(len(view))

    def write(self, data: Any) -> int:
        view = memoryview(data)
        for page, inside, outside in self._cut(self._position, len(view)):
            self._pages.setdefault(page, bytearray(self.PAGE))[inside] = view[outside]
        return self._advance(len(view))

    def read(self, start: int, length: int) -> bytes:
        """The bytes from `start` on; zeros where nothing was written."""
        data = bytearray(length)
        for page, inside, outside in self._cut(start, length):
            if page in self._pages:
                data[outside] = self._pages[page][inside]
        return bytes(data)

    def _advance(self, length: int) -> int:
        self._position += length
        self.size = max(self.size, self._position)
        return length

    def _cut(self, start: int, length: int) -> Iterator[tuple[int, slice, slice]]:
        """Cut a range at page borders: (page, where in the page, where in the range)."""
        done = 0
        while done < length:
            page, at = divmod(start + done, self.PAGE)
            step = min(self.PAGE - at, length - done)
            yield page, slice(at, at + step), slice(done, done + step)
            done += step


def _frame(pages: _Pages, slots: Iterable[Slot]) -> Iterator[tuple[int, bytes]]:
    """What HDF5 wrote between, before and after the tensors, in rising order."""
    position = 0
    taken = sorted((slot.offset, slot.nbytes) for slot in slots if slot.nbytes)
    for offset, nbytes in [*taken, (pages.size, 0)]:
        between = pages.read(position, offset - position)
        # Most gaps are the few bytes that align a tensor; a file is zero where nothing is said of it.
        if any(between):
            yield position, between
        position = offset + nbytes
