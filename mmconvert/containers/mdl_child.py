"""The process that opens a foreign `.mdl` file with HDF5: `python -m mmconvert.containers.mdl_child PATH [state]`.

HDF5 was not made for hostile files: of some three thousand damaged ones, one crashed it and three hung it. So it runs
here, under limits, reads headers only, and prints one JSON document (`read`): where the tensors lie, those of the model
or with `state` all with what stands beside them, or `{"refused": why}`. `mdl_read` starts it, checks every number, and
reads the bytes itself.

Nothing is unpickled, and no type is imported because a file names it: `torch.utils._pytree.treespec_loads` would do
that for `__spec__`, so it is parsed here. What the attributes mean was found by dumping files of cerebras_pytorch 2.10;
`mdl_legacy` reads the formats before that one.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmconvert.containers.hdf5_process import TOO_MUCH_MEMORY, cpu_limit, limit_cpu, limit_memory
from mmconvert.containers.mdl_dataset import (
    NONE,
    NOT_MODEL,
    OTHER,
    PICKLED,
    PLAIN_VALUE,
    location,
    open_dataset,
    scalar,
    stored_type,
    unread,
)
from mmconvert.containers.mdl_legacy import LegacyCheckpoint
from mmconvert.containers.mdl_write import FORMAT_VERSION, MAX_DEPTH, RTFX_CODES
from mmconvert.errors import InputRefused

# Bytes of address space beside what is taken without a file: what a small one may take, and what each byte of a larger
# one adds. 500,000 chunks in 140 GB take 0.2 GB and 5 seconds; 5,000 tensors in 10 MB, described one by one as HDF5 1.6
# had it, 1 second.
MEMORY_LIMIT, MEMORY_SHARE = 128 << 20, 1 / 32

DICTS = ("builtins.dict", "collections.OrderedDict")
SEQUENCES = ("builtins.list", "builtins.tuple", "builtins.set")

# The `__TYPE__` of leaves that are tensors, and of those that are plain values with the field that holds the value.
TENSORS = ("TorchTensorSerializer", "DeferredFullTensor")
PLAIN = {"ScalarSerializer": "scalar_value", "StringSerializer": "string_value", "NoneSerializer": "none"}


@dataclass(frozen=True)
class Node:
    """One place in the nesting of a state dict: a dictionary, a sequence, or a leaf, whose `type` is None.

    `names` are the keys of a dictionary, or the indices of a sequence, as they stand in flattened keys.
    """

    type: str | None
    names: tuple[str, ...] = ()
    children: tuple[Node, ...] = ()

    @property
    def is_leaf(self) -> bool:
        return self.type is None

    @property
    def items(self) -> dict[str, Node]:
        return dict(zip(self.names, self.children, strict=True))

    def leaves(self, key: str = "") -> Iterator[str]:
        """The flattened keys of the leaves at and below this node, which itself stands at `key`."""
        if self.is_leaf:
            yield key
        for name, child in self.items.items():
            yield from child.leaves(joined(key, name))


def joined(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def parse_treespec(text: str) -> Node:
    """The nesting that `torch.utils._pytree.treespec_dumps` wrote (protocol 1), of dictionaries, sequences and leaves.

    Raises `InputRefused` for any other type, by name, and for anything that is not such a document.
    """
    try:
        protocol, root = json.loads(text)
        if protocol != 1:
            raise InputRefused(f"__spec__ has protocol {protocol!r}, not 1")
        return _parse_node(root, "", 0)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise InputRefused(f"__spec__ is not the nesting of a state dict: {error!r}") from error


def _parse_node(node: dict[str, Any], key: str, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise InputRefused(f"__spec__ is nested more than {MAX_DEPTH} levels deep at {key[:80]!r}")
    kind, context, children = node["type"], node["context"], node["children_spec"]
    if kind is None:
        if context is not None or children:
            raise ValueError(f"a leaf with contents at {key!r}")
        return Node(None)
    if kind in DICTS:
        names = [str(name) for name in json.loads(context)]
    elif kind in SEQUENCES:
        names = [str(index) for index in range(len(children))]
    else:
        raise InputRefused(f"__spec__ has a {kind!r} at {key!r}; only dictionaries, lists, tuples and sets are read")
    if len(names) != len(children) or len(set(names)) != len(names):
        raise ValueError(f"keys and values do not match at {key!r}")
    pairs = zip(names, children, strict=True)
    return Node(kind, tuple(names), tuple(_parse_node(child, joined(key, name), depth + 1) for name, child in pairs))


class Checkpoint:
    """An open checkpoint file of format 0.5 or later.

    Its leaves are described by attributes of its root: `<flattened key>.__metadata__`.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._tensors: list[dict[str, Any]] = []
        self._set_aside: dict[str, str] = {}

    def document(self) -> dict[str, Any]:
        """What `mdl_read` asks for: the model's tensors in order, the user's metadata, and what is left out and why."""
        scopes = self._nesting().items
        metadata = self._plain(scopes.pop("__metadata__"), "__metadata__") if "__metadata__" in scopes else []
        if not isinstance(metadata, list) or not all(isinstance(entry, dict) for entry in metadata):
            raise InputRefused("__metadata__ is not a list of dictionaries")
        if "model" in scopes and not scopes["model"].is_leaf:
            for key in scopes.pop("model").leaves("model"):
                self._take(key, key.removeprefix("model."))
        else:
            for key in [name for name, node in scopes.items() if node.is_leaf and self._kind(name) in TENSORS]:
                self._take(key, key)
                del scopes[key]
        for name, node in scopes.items():
            for key in node.leaves(name):
                self._set_aside[key] = PICKLED if self._kind(key) == "ObjectSerializer" else NOT_MODEL.get(name, OTHER)
        return {
            "format": self._scalar("__version__"),
            "release": self._scalar("__cstorch_version__"),
            "saved_by": None,
            "tensors": self._tensors,
            "metadata": metadata,
            "set_aside": self._set_aside,
        }

    def state(self) -> dict[str, Any]:
        """What `mdl_read` asks for where all is wanted, see `_whole`."""
        return {"state": self._whole(self._nesting(), "")}

    def _whole(self, node: Node, key: str) -> list[Any]:
        """What stands at and below a node, after its kind, so that a value cannot pass for a tensor."""
        children = {name: self._whole(child, joined(key, name)) for name, child in node.items.items()}
        if not node.is_leaf:
            return ["dict", children] if node.type in DICTS else ["list", list(children.values())]
        holder, described = self._described(key)
        kind = described["__TYPE__"]
        if kind in PLAIN:
            if kind != "NoneSerializer" and PLAIN[kind] not in described:
                raise InputRefused(f"{key}: its description is damaged: it has no {PLAIN[kind]}")
            return ["value", described.get(PLAIN[kind])]
        if kind in TENSORS:
            return ["tensor", {"key": key, **_tensor(self._file, holder, described)}]
        raise InputRefused(f"{key}: {PICKLED if kind == 'ObjectSerializer' else f'a {kind}, which is not read'}")

    def _nesting(self) -> Node:
        if self._scalar("__SUCCESS__") is not True:
            raise InputRefused("is a partially written checkpoint: __SUCCESS__ is missing or false")
        try:
            _, treespec = json.loads(self._scalar("__spec__"))
        except (TypeError, ValueError, RecursionError) as error:
            raise InputRefused(f"__spec__ is missing or damaged: {error}") from error
        root = parse_treespec(treespec)
        if root.type not in DICTS:
            raise InputRefused("does not hold a dictionary")
        keys = list(root.leaves())
        if len(set(keys)) != len(keys):
            raise InputRefused("two of its entries have the same flattened key, so one of them is lost")
        return root

    def _scalar(self, name: str) -> Any:
        """The string or number in an attribute of the root; None where there is none."""
        return scalar(self._file.id, name, name)

    def _described(self, key: str) -> tuple[str, dict[str, Any]]:
        """What is said of a leaf, and the key that its data stands under, which is another one if it is linked."""
        described = self._own_description(key, key)
        if described["__TYPE__"] != "LinkedObject":
            return key, described
        holder = described["key"]
        described = self._own_description(holder, f"{key}, linked to {holder}")
        if described["__TYPE__"] == "LinkedObject":
            raise InputRefused(f"{key}: linked to {holder}, which is a link itself")
        return holder, described

    def _own_description(self, key: str, called: str) -> dict[str, Any]:
        text = self._scalar(f"{key}.__metadata__")
        if text is None:
            raise InputRefused(f"{called}: the file names it but does not have it")
        try:
            described = json.loads(text)[f"{key}.__metadata__"]
            return {"__TYPE__": str(described["__TYPE__"]), **described}
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise InputRefused(f"{called}: its description is damaged: {error!r}") from error

    def _kind(self, key: str) -> str:
        kind: str = self._described(key)[1]["__TYPE__"]
        return kind

    def _plain(self, node: Node, key: str) -> Any:
        """The values at and below a node; what is neither number, string nor None is None, and set aside."""
        if node.type in DICTS:
            return {name: self._plain(child, joined(key, name)) for name, child in node.items.items()}
        if not node.is_leaf:
            return [self._plain(child, joined(key, name)) for name, child in node.items.items()]
        _, described = self._described(key)
        kind = described["__TYPE__"]
        if kind not in PLAIN:
            self._set_aside[key] = PICKLED if kind == "ObjectSerializer" else OTHER
        return described.get(PLAIN.get(kind, ""))

    def _take(self, key: str, name: str) -> None:
        """Take the leaf `key` for the model's tensor `name`."""
        holder, described = self._described(key)
        kind = described["__TYPE__"]
        if kind in TENSORS:
            self._tensors.append({"key": name, **_tensor(self._file, holder, described)})
        elif kind == "NoneSerializer":
            self._set_aside[key] = NONE
        elif kind in PLAIN:
            self._set_aside[key] = PLAIN_VALUE
        else:
            raise unread(key, kind)


def _tensor(file: Any, key: str, described: dict[str, Any]) -> dict[str, Any]:
    """A tensor as it is described, if its dataset agrees, and where its bytes lie or what fills it."""
    if described["__TYPE__"] == "DeferredFullTensor":
        dtype = described["dtype"].removeprefix("torch.")
        return {"dtype": dtype, "shape": described["shape"], "fill": described["fill_value"]}
    try:
        (shape,), (torch_dtype,) = described["shapes"], described["dtypes"]
        dtype = str(torch_dtype).removeprefix("torch.")
    except (KeyError, TypeError, ValueError) as error:
        raise InputRefused(f"{key}: its description is damaged: {error!r}") from error
    if dtype not in RTFX_CODES:
        raise InputRefused(f"{key}: {torch_dtype} is not an element type of this format")
    dataset = open_dataset(file, key, key)
    if dataset.get_type() != stored_type(dtype):
        raise InputRefused(f"{key}: described as {torch_dtype} but stored as {dataset.dtype}")
    if dataset.shape is None or list(dataset.shape) != shape:
        raise InputRefused(f"{key}: described as {shape} but stored as {dataset.shape}")
    return {"dtype": dtype, "shape": shape, **location(dataset, key)}


def read(path: str, what: str = "document") -> dict[str, Any]:
    """The document for one file, or its `state`. Raises `InputRefused`, and for a damaged file whatever h5py raises."""
    import h5py

    # Nobody writes to a checkpoint that is converted, and not every file system can lock.
    with h5py.File(path, "r", locking=False) as file:
        if file.userblock_size:
            raise InputRefused("an HDF5 file with a user block is no checkpoint")
        version = scalar(file.id, "__version__", "__version__")
        if isinstance(version, (int, float)) and version >= FORMAT_VERSION:
            checkpoint = Checkpoint(file)
            return checkpoint.state() if what == "state" else checkpoint.document()
        if what == "state":
            raise InputRefused(f"a format before {FORMAT_VERSION}, whose nesting is a pickle, which is never loaded")
        return LegacyCheckpoint(file).document()


def _limit(path: str) -> None:
    """Have the system end this process, or refuse it memory, where the file at `path` makes it take too much."""
    # What is loaded by now is not the file's doing.
    import h5py  # noqa: F401

    size = os.stat(path).st_size
    limit_cpu(cpu_limit(size))
    limit_memory(MEMORY_LIMIT + int(size * MEMORY_SHARE))


def main(path: str, what: str = "document") -> None:
    _limit(path)
    try:
        document = read(path, what)
    except InputRefused as error:
        document = {"refused": str(error)}
    except MemoryError:
        document = {"refused": TOO_MUCH_MEMORY}
    except Exception as error:  # whatever HDF5 makes of a damaged file is a finding about the file
        document = {"refused": f"cannot be read: {str(error) or type(error).__name__}"}
    json.dump(document, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
