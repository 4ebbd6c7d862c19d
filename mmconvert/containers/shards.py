"""Checkpoints in several files, and what every container asks of a file name and of a tensor.

An index (`model.safetensors.index.json`, `pytorch_model.bin.index.json`) says in `weight_map` which file holds which
key; format: https://huggingface.co/docs/transformers/big_models#sharded-checkpoints. It comes from strangers, so it is
not followed out of its folder, and it must agree with its files key by key, in both directions.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from mmconvert.documents import LISTING_LIMITS, Limits, read_json
from mmconvert.errors import InputRefused
from mmconvert.sources import TensorRef

# The largest open models, of experts without number, have some 90,000. 100,000 take 60 MB of memory to list.
MAX_TENSORS = 100_000
MAX_KEY_LENGTH = 1024
# As many as torch and numpy can hold.
MAX_RANK = 64
MAX_COUNT = (1 << 63) - 1


def read_shards(index_path: Path, read_file: Callable[[Path, str], dict[str, TensorRef]]) -> dict[str, TensorRef]:
    """The tensors of all the files that `index_path` names, in the order of its `weight_map`.

    `read_file(path, name)` reads the headers of one of them. Raises `InputRefused` where the index is malformed, names
    a file that is missing or lies elsewhere, or disagrees with a file about a single key.
    """
    weight_map = _weight_map(index_path)
    found: dict[str, TensorRef] = {}
    for name in dict.fromkeys(weight_map.values()):
        for key, tensor in read_file(inside(index_path.parent, name), name).items():
            if key in found:
                raise InputRefused(f"{index_path}: {key!r} lies in {found[key].file} and in {name}")
            if key not in weight_map:
                raise InputRefused(f"{index_path}: {name} holds {key!r}, which the index does not list")
            found[key] = tensor
    for key, name in weight_map.items():
        if key not in found:
            raise InputRefused(f"{index_path}: {key!r} should be in {name}, but is not there")
        if found[key].file != name:
            raise InputRefused(f"{index_path}: {key!r} should be in {name}, but lies in {found[key].file}")
    return {key: found[key] for key in weight_map}


def _weight_map(index_path: Path) -> dict[str, str]:
    limits = Limits(LISTING_LIMITS.nbytes, 2 * MAX_TENSORS, 2 * MAX_TENSORS)
    index = read_json(inside(index_path.parent, index_path.name), limits)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputRefused(f"{index_path}: has no weight_map, which says which file holds which tensor")
    if len(weight_map) > MAX_TENSORS:
        raise InputRefused(f"{index_path}: lists {len(weight_map):,} tensors; at most {MAX_TENSORS:,} are read")
    for key, name in weight_map.items():
        check_key(key, index_path)
        if not isinstance(name, str):
            raise InputRefused(f"{index_path}: {key!r}: its file is not a name")
        if not _is_plain(name):
            raise InputRefused(f"{index_path}: {key!r}: {name[:80]!r} is not a plain file name")
    return weight_map


def inside(folder: Path, name: str) -> Path:
    """What is called `name` in `folder`, refused where it would lead out of it.

    A link may point elsewhere in the folder, or, in a snapshot of the Hugging Face hub's cache, to a file in the
    `blobs/` beside `snapshots/` (https://huggingface.co/docs/huggingface_hub/guides/manage-cache).
    """
    path = folder / name
    if not _is_plain(name):
        raise InputRefused(f"{folder}: {name!r} is not a plain file name")
    try:
        root, target = folder.resolve(strict=True), path.resolve(strict=True)
        leads_out = not target.is_relative_to(root) and not _is_blob(target, root)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise InputRefused(f"{path}: is missing or cannot be read") from error
    if leads_out:
        raise InputRefused(f"{path}: links out of its folder, to {target}")
    return path


def _is_plain(name: str) -> bool:
    """Whether a name is that of a file in a folder, here and on Windows, and leads nowhere else."""
    names = {PurePosixPath(name).name, PureWindowsPath(name).name}
    return name.isprintable() and names == {name} and name not in {"", ".."}


def _is_blob(target: Path, root: Path) -> bool:
    """Whether a file lies in the hub's `blobs/` for a folder `models--x--y/snapshots/<revision>` or one below it.

    Both paths are without links, so a `blobs/` that is a link to some folder of this machine is none.
    """
    revision = next((folder for folder in (root, *root.parents) if folder.parent.name == "snapshots"), None)
    return revision is not None and target.parent == revision.parent.parent / "blobs" and target.is_file()


def check_key(key: str, path: Path) -> None:
    """Refuse a tensor's name that some tool downstream would take for a path, a control sequence, or metadata."""
    plain = key.isprintable() and not {"/", "\\"} & set(key) and key != "__metadata__"
    if not plain or not 0 < len(key) <= MAX_KEY_LENGTH:
        raise InputRefused(f"{path}: {key[:80]!r} cannot be the name of a tensor")


def check_shape(shape: Any, what: str) -> tuple[int, ...]:
    """`shape` as a tuple, if torch and numpy could hold it too; `what` opens the error ("file: key: its shape").

    That is at most 64 sizes, none negative, whose product fits in 63 bits even without the sizes that are zero.
    """
    if not are_counts(shape) or len(shape) > MAX_RANK:
        raise InputRefused(f"{what} is not a list of at most {MAX_RANK} integers from 0 on")
    if prod(size or 1 for size in shape) > MAX_COUNT:
        raise InputRefused(f"{what} is larger than any tensor can be")
    return tuple(shape)


def are_counts(values: Any) -> bool:
    """Whether `values` is a list or tuple of integers from 0 on (booleans, for Python, are integers too)."""
    return isinstance(values, (list, tuple)) and all(type(value) is int and value >= 0 for value in values)
