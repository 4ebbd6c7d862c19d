"""Checkpoints of a run, `checkpoint_{step}.mdl`: all that it takes to go on as if nothing had happened.

They have the form in which CS saves a run: `model`, `optimizer` and the rest side by side, with `model.` in front of
every parameter's name, and what describes the model under `__metadata__`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from mmconvert import api
from mmconvert.errors import InputRefused
from mmconvert.releases import NEWEST
from mmconvert.sources import TensorRef
from mmconvert.staging import disk_errors
from mmsimple.checkpoint import read_tensor, ref_of, refs

T = TypeVar("T")
NAME = re.compile(r"checkpoint_(\d+)\.mdl")
PREFIX = "model."
# Without these no run can go on.
NEEDED = ("optimizer", "dataloader", "rng", "global_step")


def path_of(folder: Path, step: int) -> Path:
    return folder / f"checkpoint_{step}.mdl"


def saved(folder: Path) -> dict[int, Path]:
    """The checkpoints in a model folder by their steps, in order; what is not finished has another name."""
    found = {int(name[1]): path for path in folder.glob("*.mdl") if (name := NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def clear_up(folder: Path) -> None:
    """Remove what killed runs left unfinished in a model folder, which nobody else may be writing to.

    A checkpoint that is written again clears up after itself, but the next run may write others. Raises DiskError.
    """
    for path in folder.glob(".checkpoint_*.mdl.mmconvert-*"):
        with disk_errors(path, 0):
            path.unlink(missing_ok=True)


def before(path: Path) -> Path | None:
    """The checkpoint of the same run that comes before one, if there is any."""
    own = list(saved(path.parent).values())
    return own[own.index(path) - 1] if path in own[1:] else None


def save(path: Path, model: nn.Module, params: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a model and the state of its run; the file appears whole or not at all.

    `params` is the run's params document. `state` is any nesting with tensors in it, and `optimizer` as
    `optimizer_state` gives it. Raises DiskError.
    """
    weights = {f"{PREFIX}{ref.key}": ref for ref in refs(model)}
    metadata = {"version": f"{NEWEST}.0", "model_name": "multimodal_simple", "params": dict(params)}
    named = {**state, "optimizer": _renamed(state["optimizer"], lambda name: PREFIX + name)}
    # Where a tensor stands says its name.
    rest = _with(named, Tensor, lambda tensor: ref_of("", tensor))
    api.write_state(path, {"model": weights, **rest, "__metadata__": [metadata]}, overwrite=True)


def load_state(path: Path) -> dict[str, Any]:
    """The state of a run, see `save`. Raises InputRefused for a file that is damaged, or no checkpoint of a run."""
    state = api.read_state(path)
    state.pop("model", None)
    state.pop("__metadata__", None)
    missing = [name for name in NEEDED if name not in state]
    if missing:
        raise InputRefused(f"{path}: has no {', '.join(missing)} to go on with; --init-from takes its weights alone")
    loaded: dict[str, Any] = _with(state, TensorRef, read_tensor)
    return {**loaded, "optimizer": _renamed(loaded["optimizer"], lambda name: name.removeprefix(PREFIX))}


def keep_newest(folder: Path, count: int | None, step: int) -> None:
    """Of the checkpoints up to `step` remove all but so many of the newest; None keeps all. Raises DiskError."""
    if count is not None:
        for path in [path for number, path in saved(folder).items() if number <= step][:-count]:
            with disk_errors(path, 0):
                path.unlink(missing_ok=True)


def _renamed(optimizer: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    """The state of an optimizer with other names of its parameters."""
    return {
        "state": {rename(name): state for name, state in optimizer["state"].items()},
        "param_groups": [
            {**group, "params": [rename(name) for name in group["params"]]} for group in optimizer["param_groups"]
        ],
    }


def _with(node: Any, kind: type[T], change: Callable[[T], Any]) -> Any:
    """The same nesting of lists and mappings with every leaf of a kind changed."""
    if isinstance(node, kind):
        return change(node)
    if isinstance(node, list):
        return [_with(child, kind, change) for child in node]
    if isinstance(node, Mapping):
        return {name: _with(child, kind, change) for name, child in node.items()}
    return node
