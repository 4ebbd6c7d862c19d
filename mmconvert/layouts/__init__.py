"""What is this path? A checkpoint's format, its configs, where its tensors lie, and the files that travel with it."""

from __future__ import annotations

import os
from pathlib import Path

from mmconvert import registry
from mmconvert.containers import weight_files
from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts import cerebras, hugging_face
from mmconvert.layouts.checkpoint import ASSETS, NO_HINTS, Checkpoint, Hints, readable
from mmconvert.layouts.hugging_face import snapshot
from mmconvert.sources import FILES

__all__ = ["ASSETS", "NO_HINTS", "Checkpoint", "Hints", "readable", "recognise"]


def recognise(path: Path, hints: Hints = NO_HINTS) -> Checkpoint:
    """Find out what lies at a path: a folder, a file, or a hub cache folder.

    Raises UsageError if there is nothing, InputRefused if it is nothing that can be converted, with the reason, and
    NoConversion if the user names a model that is not known.
    """
    # pathlib would raise for a name that is too long.
    if not os.path.exists(path):
        raise UsageError(f"{path}: no such file or folder")
    if hints.model is not None:
        registry.check_model(hints.model)
    # A file that was read before may have been replaced since.
    FILES.close()
    with readable(path):
        return _recognise(snapshot(path), hints)


def _recognise(path: Path, hints: Hints) -> Checkpoint:
    if path.is_file():
        return (
            cerebras.recognise(path, hints)
            if cerebras.is_cs_file(path, hints)
            else hugging_face.single_folder(path.parent, hints, weights=path)
        )
    config = path / "config.json"
    # Taken for one that is not there, it would leave a riddle: the folder would be one of another layout.
    if os.path.lexists(config) and not config.is_file():
        raise InputRefused(f"{config}: is not a regular file, or leads to none")
    holds_mdl = any(path.glob("*.mdl"))
    if config.is_file() and (weight_files(path) or not holds_mdl):
        return hugging_face.single_folder(path, hints)
    if weight_files(path) or holds_mdl:
        return cerebras.recognise(path, hints)
    if (path / "config.yaml").is_file():
        return cerebras.recognise(path / "config.yaml", hints)
    hugging_face.refuse_adapters(path)
    return hugging_face.several_folders(path, hints)
