"""Checkpoint containers: readers give TensorRefs from headers alone, writers lay a file out before its bytes move.

This page knows which files of a folder hold its weights; each container has a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mmconvert.containers.shards import inside
from mmconvert.errors import InputRefused
from mmconvert.sources import TensorRef

Tensors = Mapping[str, TensorRef]


def _safetensors(path: Path) -> Tensors:
    from mmconvert.containers import safetensors

    if path.suffix == ".json":
        return safetensors.read_index(path)
    return safetensors.read_file(inside(path.parent, path.name), str(path))


def _torch_bin(path: Path) -> Tensors:
    from mmconvert.containers import torch_bin

    if path.suffix == ".json":
        return torch_bin.read_index(path)
    return torch_bin.read_file(inside(path.parent, path.name), str(path))


# In the order in which they are preferred, which is that of transformers: safetensors before pickles.
_WEIGHTS: tuple[tuple[str, Callable[[Path], Tensors]], ...] = (
    ("model.safetensors.index.json", _safetensors),
    ("model.safetensors", _safetensors),
    ("pytorch_model.bin.index.json", _torch_bin),
    ("pytorch_model.bin", _torch_bin),
)


def weight_files(folder: Path) -> list[str]:
    """The names in a folder that hold, or lead to, its weights, the preferred one first."""
    return [name for name, _ in _WEIGHTS if (folder / name).is_file()]


def open_folder(folder: Path) -> tuple[Tensors, str | None]:
    """The tensors of a folder, and a warning where it holds them twice.

    Raises InputRefused if there are none, or if a single file lies beside an index so that either may be stale.
    """
    found = weight_files(folder)
    if not found:
        raise InputRefused(f"{folder}: holds no weights: none of {', '.join(name for name, _ in _WEIGHTS)}")
    if found[:2] == ["model.safetensors.index.json", "model.safetensors"]:
        raise InputRefused(
            f"{folder}: holds model.safetensors and model.safetensors.index.json; one is stale: remove it"
        )
    unread = [name for name in found[1:] if name.startswith("pytorch_model")]
    warning = f"{folder}: {found[0]} is read, {unread[0]} beside it is not" if unread and "safe" in found[0] else None
    return dict(_WEIGHTS)[found[0]](folder / found[0]), warning


def open_file(path: Path) -> tuple[Tensors, str | None]:
    """The tensors of one file, by its name: safetensors or torch's zip format, or an index of either."""
    if path.suffix == ".safetensors" or path.name.endswith(".safetensors.index.json"):
        return _safetensors(path), None
    if path.suffix in (".bin", ".pt", ".pth") or path.name.endswith(".bin.index.json"):
        return _torch_bin(path), None
    raise InputRefused(f"{path}: no container that is known here: .safetensors, .bin, .pt, .mdl")
