"""The pickle inside a torch checkpoint, read without unpickling anything.

`torch.save` describes its tensors in a pickle, and a pickle is a program. This is a machine for the few opcodes and the
few names with which torch describes plain tensors (torch/_utils.py, torch/serialization.py); it calls nothing and makes
nothing but dicts, lists, tuples, scalars and the descriptions below. Whatever else the program asks for is refused by
name. The standard unpickler with an allow-list would not do: a memo index makes it allocate gigabytes, BUILD changes
the objects that the allow-list hands out, and hashing a nested tuple takes it forever.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmconvert.containers.shards import are_counts, check_shape
from mmconvert.dtypes import BY_NAME, DType
from mmconvert.errors import InputRefused

STORAGES = {
    "torch.HalfStorage": BY_NAME["float16"],
    "torch.BFloat16Storage": BY_NAME["bfloat16"],
    "torch.FloatStorage": BY_NAME["float32"],
    "torch.DoubleStorage": BY_NAME["float64"],
    "torch.LongStorage": BY_NAME["int64"],
    "torch.IntStorage": BY_NAME["int32"],
    "torch.ShortStorage": BY_NAME["int16"],
    "torch.CharStorage": BY_NAME["int8"],
    "torch.ByteStorage": BY_NAME["uint8"],
    "torch.BoolStorage": BY_NAME["bool"],
}
_ORDERED_DICT = "collections.OrderedDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_ALLOWED = {*STORAGES, _ORDERED_DICT, _TENSOR, _PARAMETER}

# Each may make an object or remember one, so this bounds memory as well as time. A tensor takes 30.
MAX_OPCODES = 1_000_000

_PUSH_ARGUMENT = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
_PUSH_CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_SMALL_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Storage:
    """A run of `length` elements that the checkpoint keeps under the name `key`."""

    key: str
    dtype: DType
    length: int


@dataclass(frozen=True)
class View:
    """A tensor: element (i, j, …) is element `offset + i * strides[0] + j * strides[1] + …` of its storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    """A dotted name of the allow-list, standing for what Python would have imported."""

    name: str


class _Mark:
    """Where on the stack the items of the next collection begin."""


def read_pickle(data: bytes, path: Path) -> Any:
    """What the pickle describes: scalars, lists, tuples, dicts with string or integer keys, and `View`s.

    Raises `InputRefused`, naming `path`, for any other name or opcode, for a pickle that is malformed and for one that
    goes on for more than `MAX_OPCODES`.
    """
    try:
        return _Machine(path).run(data)
    except (ValueError, IndexError, KeyError) as error:  # malformed opcodes, an empty stack, nothing under a memo index
        raise InputRefused(f"{path}: its data.pkl is not a well-formed pickle") from error


class _Machine:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for done, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            self._expect(done < MAX_OPCODES, f"takes more than {MAX_OPCODES:,} opcodes, the most that are read")
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        if opcode in _PUSH_ARGUMENT:
            stack.append(argument)
        elif opcode in _PUSH_CONSTANT:
            stack.append(_PUSH_CONSTANT[opcode])
        elif opcode in _SMALL_TUPLES:
            stack.append(tuple(reversed([stack.pop() for _ in range(_SMALL_TUPLES[opcode])])))
        else:
            self._build(opcode, argument)

    def _build(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        match opcode:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                stack.append(_Mark)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "TUPLE":
                stack.append(tuple(self._pop_to_mark()))
            case "APPEND":
                self._extend([stack.pop()])
            case "APPENDS":
                self._extend(self._pop_to_mark())
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._update([key, value])
            case "SETITEMS":
                self._update(self._pop_to_mark())
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(self._global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(self._global(module, name))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(function, arguments))
            case "BUILD":
                # The attributes of a state dict: the versions of its modules. No weights, so they are left aside.
                stack.pop()
                self._expect(isinstance(stack[-1], dict), "gives attributes to something that is no dict")
            case _:
                self._expect(False, f"uses the opcode {opcode}, which torch does not need for plain tensors")

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise InputRefused(f"{self._path}: its data.pkl {otherwise}")

    def _pop_to_mark(self) -> list[Any]:
        items = []
        while (item := self._stack.pop()) is not _Mark:
            items.append(item)
        return items[::-1]

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        self._expect(isinstance(target, list), "appends to something that is no list")
        target.extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        self._expect(isinstance(target, dict) and len(items) % 2 == 0, "sets items of something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._expect(isinstance(key, (str, int)), "has a key that is neither a string nor an integer")
            self._expect(key not in target, f"gives the key {str(key)[:80]!r} twice")
            target[key] = value

    def _global(self, module: Any, name: Any) -> _Global:
        self._expect(isinstance(module, str) and isinstance(name, str), "names something by what is no string")
        dotted = f"{module}.{name}"
        self._expect(dotted in _ALLOWED, f"asks for {dotted[:200]!r}, which is not among the names of plain tensors")
        return _Global(dotted)

    def _storage(self, reference: Any) -> Storage:
        match reference:
            case ("storage", _Global(name), str(key), str(), length) if name in STORAGES and are_counts([length]):
                return Storage(key, STORAGES[name], length)
        raise InputRefused(f"{self._path}: its data.pkl refers to a storage in a way that torch does not")

    def _call(self, function: Any, arguments: Any) -> Any:
        match function, arguments:
            case _Global(name), () if name == _ORDERED_DICT:
                return {}
            # The rest says how gradients flow, and lastly, where it is there, that values are negated or conjugated.
            case _Global(name), (Storage() as storage, offset, shape, strides, bool(), dict(), *flags) if (
                name == _TENSOR
            ):
                return self._view(storage, offset, shape, strides, flags)
            case _Global(name), (View() as view, bool(), dict()) if name == _PARAMETER:
                return view
        raise InputRefused(f"{self._path}: its data.pkl makes an object in a way that torch does not")

    def _view(self, storage: Storage, offset: Any, shape: Any, strides: Any, flags: list[Any]) -> View:
        sizes = check_shape(shape, f"{self._path}: a shape in its data.pkl")
        plain = are_counts([offset]) and are_counts(strides) and len(strides) == len(sizes) and not any(flags)
        self._expect(plain, "holds a tensor that is not a plain view of its storage")
        return View(storage, offset, sizes, tuple(strides))
