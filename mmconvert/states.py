"""The state of a program, such as a training run, in one `.mdl` file: written whole or not at all, and read back.

Any nesting of dicts and lists, with tensors anywhere in it. Nothing is known of what it means.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmconvert.containers.layout import Outline
from mmconvert.errors import InputRefused
from mmconvert.execute import execute_alone
from mmconvert.plans import OutputFile, Plan, PlannedTensor
from mmconvert.sources import FILES, TensorRef, stamp


def write_state(path: str | Path, state: Mapping[str, Any], *, overwrite: bool = False, fsync: bool = True) -> None:
    """Write any nesting of dicts with string keys, lists and leaves as one `.mdl` file.

    Leaves are `TensorRef`s, None, and bools, ints, floats and strings. The file appears whole or not at all. It is
    streamed from wherever the tensors lie, which may be the file that it replaces: whose old `TensorRef`s are of no use
    afterwards.

    Raises `OutputRefused` where something stands there that is no file, or a file and `overwrite` is not set;
    `InputRefused`, naming the entry, for what a `.mdl` file cannot hold (another object or element type, two entries
    whose keys on the way to them, joined with dots, are the same, a tensor with a slash in them, more than 64 levels)
    and for a source that fails; and `DiskError`.
    """
    execute_alone(_plan(Path(path), state), overwrite=overwrite, fsync=fsync)


def read_state(path: str | Path) -> dict[str, Any]:
    """All that a `.mdl` file holds, in its order, with `TensorRef`s, unread, for tensors.

    What `write_state` wrote comes back equal. Of files of other programs, tuples and sets come back as lists and keys
    as strings. Raises `InputRefused` for a file that is damaged, unsafe or of a format before 0.5, and for a pickled
    object, naming it.
    """
    from mmconvert.containers import mdl_read

    # Another process may have replaced the file since this one last read from it, and descriptors are kept.
    FILES.close()
    return mdl_read.read_state(Path(path))


def _plan(path: Path, state: Mapping[str, Any]) -> Plan:
    from mmconvert.containers import mdl_write

    refs = {key: leaf for key, leaf in mdl_write.flattened(state) if isinstance(leaf, TensorRef)}
    layout = mdl_write.lay_out_state(path.name, _outlined(state, ""))
    tensors = tuple(PlannedTensor(key, ref.dtype, ref.shape, ref.source, key, "copied") for key, ref in refs.items())
    files = {place: stamp(place) for ref in refs.values() if (place := ref.path) is not None}
    return Plan(out=path, outputs=(OutputFile(layout, tensors),), documents={}, sources=tuple(files), files=files)


def _outlined(node: Any, key: str) -> Any:
    """The same nesting with outlines for tensors.

    Raises `InputRefused` for a key that is no string: the format would keep it, but as a string in every other place.
    """
    if isinstance(node, TensorRef):
        return Outline(node.key, node.dtype, node.shape)
    if isinstance(node, list):
        return [_outlined(child, f"{key}.{index}") for index, child in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    for name in node:
        if not isinstance(name, str):
            raise InputRefused(f"{key or 'the state'}: has the key {name!r}, which is no string")
    return {name: _outlined(child, f"{key}.{name}" if key else name) for name, child in node.items()}
