"""Laying out a `.mdl` checkpoint: an HDF5 file as `cerebras.pytorch.load` 2.10 reads it (checkpoint format 0.5).

HDF5 writes the file into memory, where its tensors take no room: every dataset is contiguous, gets its place when it is
created and is never filled. What HDF5 did write, the metadata, is the frame of the layout. So the library, which
crashes the process when a write hits a full disk, never sees the disk, and the tensors move at the speed of a copy.

What is written is what cerebras_pytorch 2.10 writes, found by dumping its files, less what its loader ignores: chunks,
compression, and the nesting repeated for people in the first member of each `__spec__`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mmconvert.containers.layout import FileLayout, Outline, Slot
from mmconvert.containers.mdl_pages import Pages, frame
from mmconvert.errors import InputRefused
from mmconvert.excerpt import excerpt

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
# What else a leaf may be, and in how many bits an integer: Python reads none of more than 4,300 digits from JSON.
PLAIN = (type(None), bool, int, float, str)
INT_BITS = 14_000
# How deep dictionaries and lists may stand in each other; a trainer's config takes about ten levels.
MAX_DEPTH = 64
# The longest name in bytes that HDF5 gives an attribute, less what is put behind a leaf's key.
MAX_KEY = (1 << 16) - 64
# Tensors start at multiples of this many bytes, so that they can be mapped as arrays.
ALIGNMENT = 8


def lay_out(name: str, outlines: Sequence[Outline], metadata: Mapping[str, Any]) -> FileLayout:
    """Lay out the checkpoint file `name` that holds `{"model": {key: tensor}, "__metadata__": [metadata]}`.

    `metadata` is JSON-like. The slots have the keys of the outlines. Raises `InputRefused` as `lay_out_state` does.
    """
    for outline in outlines:
        if outline.dtype.name not in RTFX_CODES:
            remedy = "use --container safetensors to write it as it is"
            raise InputRefused(f"{outline.key}: a .mdl file cannot hold {outline.dtype}; {remedy}")
        if not outline.key:
            raise InputRefused("'': a .mdl file cannot hold a tensor of this name")
    state = {"model": {outline.key: outline for outline in outlines}, "__metadata__": [metadata]}
    layout = lay_out_state(name, state)
    return replace(layout, slots={outline.key: layout.slots[f"model.{outline.key}"] for outline in outlines})


def lay_out_state(name: str, state: Mapping[str, Any]) -> FileLayout:
    """Lay out the checkpoint file `name` that holds `state`: mappings and lists in each other, and leaves.

    A leaf is an `Outline`, whatever its key, where a tensor stands, or else None, a bool, int, float or str. Numbers
    are kept as Python's JSON has them: integers of up to `INT_BITS` bits, and floats that may be NaN or infinite. The
    slots have the tensors' flattened keys, see `flattened`. The same state gives the same bytes, whenever and wherever.

    Raises `InputRefused` for what the format cannot hold: another object, an element type, a key, two leaves of one
    flattened key, or a nesting deeper than `MAX_DEPTH`.
    """
    if "" in state:
        raise InputRefused("'': a .mdl file cannot hold an entry of this name")
    leaves: dict[str, Any] = {}
    for key, leaf in flattened(state):
        if key in leaves:
            raise InputRefused(f"{key}: two entries have this path, which a .mdl file cannot tell apart")
        _check(key, leaf)
        leaves[key] = leaf
    pages = Pages()
    slots = _write(pages, leaves, state)
    return FileLayout(name, pages.size, tuple(frame(pages, slots.values())), slots)


def flattened(node: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every leaf at and below `node`, after its flattened key: the keys and indices on the way to it, joined with dots.

    Raises `InputRefused` for a nesting deeper than `MAX_DEPTH`, such as one that holds itself.
    """
    if depth > MAX_DEPTH:
        raise InputRefused(f"{excerpt(key)}: is nested more than {MAX_DEPTH} levels deep")
    if not isinstance(node, (Mapping, list)):
        yield key, node
        return
    for name, child in node.items() if isinstance(node, Mapping) else enumerate(node):
        yield from flattened(child, f"{key}.{name}" if depth else str(name), depth + 1)


def _check(key: str, leaf: Any) -> None:
    if isinstance(leaf, Outline):
        if leaf.dtype.name not in RTFX_CODES:
            raise InputRefused(f"{key}: a .mdl file cannot hold {leaf.dtype}")
        # HDF5 takes a dot for the root, and a slash for the way into a group.
        if key == "." or "/" in key or not key.isprintable():
            raise InputRefused(f"{key!r}: a .mdl file cannot hold a tensor of this name")
    elif type(leaf) not in PLAIN:
        known = "a TensorRef, None, a bool, int, float or str"
        raise InputRefused(f"{key}: a .mdl file cannot hold a {type(leaf).__name__}, only {known}")
    elif isinstance(leaf, int) and leaf.bit_length() > INT_BITS:
        raise InputRefused(f"{key}: a .mdl file cannot hold an integer of more than {INT_BITS} bits")
    stored = key.encode(errors="replace")
    if "\0" in key or stored != key.encode(errors="surrogatepass") or len(stored) > MAX_KEY:
        raise InputRefused(f"{excerpt(key)!r}: a .mdl file cannot hold an entry of this name")


def _write(pages: Pages, leaves: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Slot]:
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
        slots = {key: _add_tensor(file, key, leaf) for key, leaf in leaves.items() if isinstance(leaf, Outline)}
        _describe(file, leaves, state)
    finally:
        file.close()
    return slots


def _add_tensor(file: Any, key: str, outline: Outline) -> Slot:
    """Make room for a tensor, and describe it in the attributes of its dataset."""
    import numpy
    from h5py import h5d

    # HDF5 has no bfloat16; cerebras_pytorch keeps its bits in an int16.
    stored = numpy.dtype("int16" if outline.dtype.name == "bfloat16" else outline.dtype.name)
    dataset = h5d.create(file, key.encode(), _hdf5_type(stored), _space(outline.shape), _placed_unfilled())
    for attribute, value in _described(outline).items():
        _add_attribute(dataset, attribute, value)
    # An empty tensor has no place in the file.
    return Slot(dataset.get_offset() or 0, outline.nbytes)


def _describe(file: Any, leaves: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write the attributes of the root: one for each leaf, the nesting, and last that all went well."""
    for key, leaf in leaves.items():
        document = {
            "__spec__": [None, _treespec({key: None})],
            "__objects__": [key],
            f"{key}.__metadata__": _described(leaf),
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


def _described(leaf: Any) -> dict[str, Any]:
    """What the reference says of a leaf; of a tensor also in the attributes of its dataset."""
    if isinstance(leaf, Outline):
        return {
            "__TORCH__": True,
            "shapes": [list(leaf.shape)],
            "dtypes": [f"torch.{leaf.dtype}"],
            "rtfx_dtypes": [RTFX_CODES[leaf.dtype.name]],
            "__TYPE__": "TorchTensorSerializer",
            "__NUMPY__": True,
            "compressed": False,
        }
    if leaf is None:
        return {"__TYPE__": "NoneSerializer", "__NONE__": True}
    if isinstance(leaf, str):
        return {"string_value": leaf, "__TYPE__": "StringSerializer", "__NONE__": True}
    return {"scalar_value": leaf, "__TYPE__": "ScalarSerializer", "__NONE__": True}


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
