"""Small runs that are quick enough to be stopped in hundreds of places, and what is left of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmconvert.containers import mdl_child, mdl_read
from mmsimple.data import h5_guard
from mmsimple.data.h5_child import finding
from mmsimple.train import checkpoint
from tests.mmsimple.train.runs import write_params

KEEP = 2


def write_run(folder: Path, steps: int, workers: int = 0, **changes: Any) -> Path:
    """The params file of a run that saves after each of so many updates, validates after every other one, and keeps
    two checkpoints.
    """
    often: dict[str, Any] = {
        "init__loop": {"max_steps": steps, "eval_frequency": 2},
        "init__checkpoint__steps": 1,
        "init__callbacks": [{"KeepNCheckpoints": {"n": KEEP}}],
    }
    return write_params(folder, workers, **{**often, **changes})


@contextmanager
def reading_here() -> Iterator[None]:
    """HDF5 reads in this process, where others would be started for it, which takes longer than a run."""

    def answer(path: Path, *given: Any) -> bytes:
        return json.dumps(mdl_child.read(str(path), *(each for each in given if isinstance(each, str)))).encode()

    def ask(paths: Iterable[Path], seconds: int) -> Iterator[str | None]:
        return map(finding, paths)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mdl_read, "_ask", answer)
        patch.setattr(h5_guard, "ask", ask)
        yield


def good(folder: Path, whole: Path) -> list[int]:
    """The steps of the checkpoints that stand in a folder, each of which is to the byte that of an undisturbed run."""
    found = checkpoint.saved(folder)
    for path in found.values():
        assert path.read_bytes() == (whole / path.name).read_bytes(), path
    return list(found)


def unfinished(folder: Path) -> list[str]:
    """What a run has no use for when it has ended."""
    return sorted(path.name for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".new")
