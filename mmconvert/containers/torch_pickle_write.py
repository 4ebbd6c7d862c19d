"""The pickle inside a torch checkpoint, written opcode by opcode: what `torch.save` makes of a dict of plain tensors.

Each tensor is a call of `torch._utils._rebuild_tensor_v2` upon a storage that the pickle names and the zip file holds;
`mmconvert.containers.torch_pickle` reads that. No opcode is newer than protocol 2, which torch itself writes and reads.
"""

from __future__ import annotations

import pickle as op
import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import prod
from operator import mul

from mmconvert.containers.layout import Outline
from mmconvert.containers.torch_pickle import STORAGES
from mmconvert.errors import InputRefused

_STORAGE_OF = {dtype.name: name for name, dtype in STORAGES.items()}


def state_dict(outlines: Sequence[Outline]) -> bytes:
    """The pickle of a dict that holds a tensor for each outline, in their order; the n-th one's storage is called n.

    Raises InputRefused, naming the key, for an element type that has no storage of its own.
    """
    parts = [op.PROTO + b"\2", op.EMPTY_DICT, op.MARK]
    for number, outline in enumerate(outlines):
        parts += [_text(outline.key), _tensor(outline, str(number))]
    return b"".join([*parts, op.SETITEMS, op.STOP])


def _tensor(outline: Outline, storage: str) -> bytes:
    """A contiguous tensor that is all of its storage, needs no gradient and has no hooks."""
    if outline.dtype.name not in _STORAGE_OF:
        raise InputRefused(f"{outline.key}: a .bin file cannot hold {outline.dtype}")
    held = ["storage", _STORAGE_OF[outline.dtype.name], storage, "cpu"]
    reference = _tuple([_text(held[0]), _name(held[1]), _text(held[2]), _text(held[3]), _count(prod(outline.shape))])
    hooks = _name("collections.OrderedDict") + op.EMPTY_TUPLE + op.REDUCE
    shape, strides = (_tuple(map(_count, each)) for each in (outline.shape, _strides(outline.shape)))
    arguments = [reference + op.BINPERSID, _count(0), shape, strides, op.NEWFALSE, hooks]
    return _name("torch._utils._rebuild_tensor_v2") + _tuple(arguments) + op.REDUCE


def _strides(shape: Sequence[int]) -> list[int]:
    """How many elements lie from one index to the next; torch counts an empty dimension as one."""
    steps = accumulate((max(size, 1) for size in reversed(shape[1:])), mul, initial=1)
    return list(steps)[::-1] if shape else []


def _name(dotted: str) -> bytes:
    module, _, name = dotted.rpartition(".")
    return op.GLOBAL + f"{module}\n{name}\n".encode()


def _tuple(items: Iterable[bytes]) -> bytes:
    return b"".join([op.MARK, *items, op.TUPLE])


def _text(text: str) -> bytes:
    data = text.encode()
    return op.BINUNICODE + struct.pack("<I", len(data)) + data


def _count(number: int) -> bytes:
    """A number from 0 on, which may be larger than 32 bits hold."""
    if number < 1 << 8:
        return op.BININT1 + bytes([number])
    data = number.to_bytes(number.bit_length() // 8 + 1, "little")
    return op.LONG1 + bytes([len(data)]) + data
