"""What differs between two checkpoints of one format: keys, shapes, element types, values, and fields of the configs.

Nothing is converted, so nothing need be known of the model: files and folders of tensors without a config will do. The
values of two tensors are compared a block at a time, whatever their element types.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmconvert.containers import open_file, open_folder, weight_files
from mmconvert.containers.shards import inside
from mmconvert.documents import read_json
from mmconvert.dtypes import DType
from mmconvert.errors import InputRefused, NoConversion, UsageError
from mmconvert.layouts import NO_HINTS, Hints, readable, recognise
from mmconvert.layouts.hugging_face import snapshot
from mmconvert.paths import differing
from mmconvert.progress import Progress, Silent
from mmconvert.registry import Node
from mmconvert.scan import numbers
from mmconvert.sources import TensorRef, blocks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Bytes of a tensor that are read at a time.
BLOCK = 1 << 20
# Elements that are compared at a time. Measured: several times as fast as with more, because objects of this size are
# made in memory that the process already has.
PIECE = 1 << 13


@dataclass(frozen=True)
class Apart:
    """How far two tensors of one shape are apart.

    `max_abs` is the largest absolute difference of their values: infinite where a NaN or an infinity meets anything
    else, 0 where only bytes differ (zeros of two signs, NaNs of two kinds). `first` is the first element that differs,
    counted in row-major order; `nan` is how many elements are NaN on one side only.
    """

    max_abs: float
    first: int
    nan: int


@dataclass(frozen=True)
class Difference:
    """What differs, by tensor key and by dotted path into the configs; what stands in pairs is of `a` and of `b`.

    A config field that one side lacks is `mmconvert.paths.ABSENT` there. `tensors` and `nbytes` say how much was
    compared by value; `notes` are worth knowing and no difference.
    """

    a: str
    b: str
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    dtypes: Mapping[str, tuple[DType, DType]]
    values: Mapping[str, Apart]
    config: Mapping[str, tuple[Any, Any]]
    tensors: int
    nbytes: int
    notes: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return not (self.only_a or self.only_b or self.shapes or self.dtypes or self.values or self.config)


@dataclass(frozen=True)
class _Opened:
    """One side: a checkpoint, or, without a `node`, tensors that belong to no model known here."""

    tensors: Mapping[str, TensorRef]
    config: Any
    notes: tuple[str, ...]
    node: Node | None = None


def difference(
    a: Path, b: Path, hints_a: Hints = NO_HINTS, hints_b: Hints = NO_HINTS, progress: Progress | None = None
) -> Difference:
    """Compare two checkpoints of one format, or files and folders of tensors that are no checkpoint known here.

    Tensors of one shape are compared by value, whatever their element types. Raises NoConversion for checkpoints of two
    formats, UsageError and InputRefused where a side cannot be read.
    """
    left, right = _open(a, hints_a), _open(b, hints_b)
    if left.node and right.node:
        _check_formats(a, left.node, b, right.node)
    pairs = {key: (ref, right.tensors[key]) for key, ref in left.tensors.items() if key in right.tensors}
    alike = {key: pair for key, pair in pairs.items() if pair[0].shape == pair[1].shape}
    bare = [str(path) for path, side in ((a, left), (b, right)) if side.config is None]
    without = (f"no configs are compared: none is known for {' and '.join(bare)}",) if bare else ()
    return Difference(
        a=str(a),
        b=str(b),
        only_a=tuple(key for key in left.tensors if key not in pairs),
        only_b=tuple(key for key in right.tensors if key not in pairs),
        shapes={key: (x.shape, y.shape) for key, (x, y) in pairs.items() if key not in alike},
        dtypes={key: (x.dtype, y.dtype) for key, (x, y) in pairs.items() if x.dtype != y.dtype},
        values=_values(alike, progress or Silent()),
        config={} if bare else dict(differing(left.config, right.config)),
        tensors=len(alike),
        nbytes=sum(ref.nbytes for _, ref in alike.values()),
        notes=(*left.notes, *right.notes, *without),
    )


def _check_formats(a: Path, left: Node, b: Path, right: Node) -> None:
    what = f"{a} is a {left.model} in format {left.format}, {b} a {right.model} in format {right.format}"
    if left.model != right.model:
        raise NoConversion(f"{what}: two models have no tensors to compare")
    if left.format != right.format:
        raise NoConversion(f"{what}: `mmconvert verify {a} {b}` compares across formats")


def _open(path: Path, hints: Hints) -> _Opened:
    try:
        found = recognise(path, hints)
    except (UsageError, InputRefused):
        with readable(path):
            bare = _open_tensors(path) if hints == NO_HINTS else None
        if bare is None:
            raise
        return bare
    return _Opened(found.tensors, found.config, (*found.notes, *_set_aside(path, found.set_aside)), found.node)


def _open_tensors(path: Path) -> _Opened | None:
    """A file or folder that is no checkpoint known here, with a `config.json` if one lies there; None if it is nothing.

    Whatever is wrong with its tensors or its `config.json` is refused as it would be for a checkpoint.
    """
    if not os.path.exists(path):
        return None
    path = snapshot(path)
    folder, file = (path, None) if path.is_dir() else (path.parent, path)
    if file is None:
        several = sorted(path.glob("*.mdl"))
        if several and (len(several) > 1 or weight_files(path)):
            return None
        file = next(iter(several), None)
    notes: tuple[str, ...] = ()
    tensors: Mapping[str, TensorRef]
    if file is not None and file.suffix == ".mdl":
        from mmconvert.containers import mdl_read

        opened = mdl_read.read_file(inside(file.parent, file.name), str(file))
        tensors, notes = opened.tensors, _set_aside(file, opened.set_aside)
    elif file is not None or weight_files(path):
        tensors, warning = open_file(file) if file is not None else open_folder(path)
        notes = (warning,) if warning else ()
    else:
        return None
    config = folder / "config.json"
    return _Opened(tensors, read_json(inside(folder, config.name)) if config.is_file() else None, notes)


def _set_aside(path: Path, entries: Mapping[str, str]) -> tuple[str, ...]:
    return (f"{path}: {len(entries)} entries are no tensors of the model and not compared",) if entries else ()


def _values(pairs: Mapping[str, tuple[TensorRef, TensorRef]], progress: Progress) -> dict[str, Apart]:
    found = {}
    progress.start(sum(ref.nbytes for _, ref in pairs.values()))
    try:
        # Each side is read in a thread of its own: both at once, and a compressed tensor, which keeps what was decoded
        # last by thread, is not decoded again for every block.
        with ThreadPoolExecutor(1) as reader:
            for key, (a, b) in pairs.items():
                apart = _compare(a, b, reader, progress)
                if apart is not None:
                    found[key] = apart
    finally:
        progress.finish()
    return found


def _compare(a: TensorRef, b: TensorRef, reader: ThreadPoolExecutor, progress: Progress) -> Apart | None:
    found: Apart | None = None
    for start, left, right in _read(a, b, reader):
        for at, size in blocks(len(left) // a.dtype.itemsize, PIECE):
            x, y = _elements(left, a.dtype, at, size), _elements(right, b.dtype, at, size)
            here = _compare_piece(x, a.dtype, y, b.dtype)
            if here is not None:
                earlier = found or Apart(0.0, start + at + here.first, 0)
                found = Apart(max(earlier.max_abs, here.max_abs), earlier.first, earlier.nan + here.nan)
        progress.advance(len(right))
    return found


def _read(a: TensorRef, b: TensorRef, reader: ThreadPoolExecutor) -> Iterator[tuple[int, memoryview, memoryview]]:
    """The elements of both tensors, block by block, with the number of a block's first one."""
    count, room = prod(a.shape), BLOCK // max(a.dtype.itemsize, b.dtype.itemsize)
    lefts, rights = (memoryview(bytearray(min(count, room) * ref.dtype.itemsize)) for ref in (a, b))
    for start, size in blocks(count, room):
        left, right = _elements(lefts, a.dtype, 0, size), _elements(rights, b.dtype, 0, size)
        reading = reader.submit(a.source.read_into, start * a.dtype.itemsize, [left])
        b.source.read_into(start * b.dtype.itemsize, [right])
        reading.result()
        yield start, left, right


def _elements(raw: memoryview, dtype: DType, start: int, size: int) -> memoryview:
    return raw[start * dtype.itemsize : (start + size) * dtype.itemsize]


def _compare_piece(left: memoryview, a: DType, right: memoryview, b: DType) -> Apart | None:
    """How far two pieces are apart: in bytes, or in value where their element types differ; None if they are not."""
    # As bytes: memoryviews are compared one element at a time.
    if a == b and bytes(left) == bytes(right):
        return None
    import numpy as np

    x, y = numbers(left, a), numbers(right, b)
    distance = distances(x, y)
    bits = f"<u{a.itemsize}"
    differing = np.frombuffer(left, bits) != np.frombuffer(right, bits) if a == b else distance > 0
    if not differing.any():
        return None
    largest = float(distance.max())
    nan = 0 if isfinite(largest) else np.count_nonzero(np.isnan(x) != np.isnan(y))
    return Apart(largest, int(differing.argmax()), int(nan))


def distances(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """How far the values of two arrays are apart, element by element, in float64.

    Two NaNs are not apart, nor are equal infinities; either is infinitely far from anything else. Integers are
    subtracted as such, so that no two different ones are at distance 0.
    """
    import numpy as np

    common = np.result_type(x, y)
    if common.kind in "iu":
        x, y = x.astype(common), y.astype(common)
        # The larger less the smaller one may not fit their type, but does fit the unsigned one of that width.
        apart: NDArray[Any] = np.maximum(x, y) - np.minimum(x, y)
        return apart.view(f"<u{common.itemsize}").astype(np.float64)
    x, y = x.astype(np.float64), y.astype(np.float64)
    with np.errstate(all="ignore"):
        found: NDArray[np.float64] = np.abs(x - y)
    odd = np.isnan(found)
    if odd.any():
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        found[odd] = np.where(same[odd], 0.0, np.inf)
    return found
