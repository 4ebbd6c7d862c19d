"""A model that only its config describes: a checkpoint without tensors.

Nothing but configs is read, so that the shape of a model is known before there are weights of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmconvert import params, registry, spellings
from mmconvert.containers.shards import inside
from mmconvert.converter import Format
from mmconvert.documents import read_json, read_yaml
from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts.checkpoint import Checkpoint, readable
from mmconvert.layouts.hugging_face import snapshot
from mmconvert.registry import Node
from mmconvert.spec import A, B, Config, Side

CONFIG = "config.json"


def describe(model: str, path: Path) -> Checkpoint:
    """The `model` whose config lies at `path`, as a checkpoint without tensors.

    A JSON file is a Hugging Face config, or holds one for each part under the part's name; any other file is a CS
    params file, or its model section alone. A folder holds such a file, or a folder with a `config.json` for each part.

    Raises NoConversion for a model that is not known, UsageError if there is nothing, InputRefused if it is not a
    config of this model.
    """
    registry.check_model(model)
    # pathlib would raise for a name that is too long.
    if not os.path.exists(path):
        raise UsageError(f"{path}: no such file or folder")
    with readable(path):
        file = _file_in(path)
        if file.is_dir():
            return _several_folders(model, file)
        return _hugging_face(model, file) if file.suffix == ".json" else _cerebras(model, file)


def _file_in(path: Path) -> Path:
    """The config that a folder holds; the path itself where it is a file, or a folder of folders."""
    folder = snapshot(path)
    return next((folder / name for name in (CONFIG, "config.yaml") if (folder / name).is_file()), folder)


def _formats(model: str, side: Side) -> Iterator[Format]:
    for converter, each in registry.formats():
        if (converter.model, each) == (model, side):
            yield converter.format(each)


def _hugging_face(model: str, file: Path) -> Checkpoint:
    config = _json(file)
    wanted: tuple[str, ...] = ()
    for form in _formats(model, A):
        if len(form.parts) == 1:
            if form.parts[""](config):
                return _checkpoint(model, form, config, {"": file}, file)
        elif all(_is_known(known, config.get(part)) for part, known in form.parts.items()):
            return _checkpoint(model, form, config, {}, file)
        else:
            wanted = tuple(form.parts)
    if wanted:
        names = " and ".join(wanted)
        raise InputRefused(f"{file}: not a config of {model}, which has two: {names}; name the folder that holds both")
    raise InputRefused(f"{file}: model_type {config.get('model_type')!r} is no {model} (see `mmconvert list`)")


def _is_known(known: Any, config: object) -> bool:
    return isinstance(config, dict) and bool(known(config))


def _several_folders(model: str, path: Path) -> Checkpoint:
    """A folder of folders: each is known by its config, whatever it is called."""
    folders = [snapshot(each) for each in sorted(path.iterdir()) if each.is_dir()]
    files = [each / CONFIG for each in folders if (each / CONFIG).is_file()]
    configs = {file: _json(file) for file in files}
    wanted: list[str] = []
    for form in _formats(model, A):
        found = {part: [file for file in files if known(configs[file])] for part, known in form.parts.items()}
        if all(len(each) == 1 for each in found.values()):
            chosen = {part: each[0] for part, each in found.items()}
            whole = {part: configs[file] for part, file in chosen.items()}
            return _checkpoint(model, form, whole.get("", whole), chosen, path)
        wanted += [f"{len(each)} of its {part or 'model'}" for part, each in found.items() if len(each) != 1]
    raise InputRefused(f"{path}: needs one config.json for each part of a {model}, but has {wanted[0]}")


def _checkpoint(model: str, form: Format, config: Config, files: Mapping[str, Path], path: Path) -> Checkpoint:
    """`files` are the configs by part, where each has a file of its own; they travel along."""
    merged, notes = dict(config), []
    sidecars = {f"{part}/{CONFIG}" if part else CONFIG: file for part, file in files.items()}
    for part, (name, merge) in form.companions.items():
        second = files[part].with_name(name) if part in files else None
        if second is None or not second.is_file():
            continue
        try:
            merged[part], remarks = merge(merged[part], _json(second))
        except ValueError as error:
            raise InputRefused(f"{files[part]} and {name} beside it disagree: {error}") from error
        sidecars[f"{part}/{name}"] = second
        notes += [f"{name}: {remark}" for remark in remarks]
    return Checkpoint(
        path=path,
        node=Node(model, form.name),
        config_from=", ".join(map(str, files.values())) or str(path),
        config=merged,
        tensors={},
        sidecars=sidecars,
        original=merged if form.binding is None else form.binding.home_config(merged),
        folders=(path,),
        notes=tuple(notes),
    )


def _cerebras(model: str, file: Path) -> Checkpoint:
    document = _mapping(read_yaml(inside(file.parent, file.name)), file)
    if not document.keys() & {"model", "trainer"}:
        document = {"model": document}
    try:
        section = params.model_section(document)
    except ValueError as error:
        raise InputRefused(f"{file}: {error}") from error
    form = next(_formats(model, B))
    return Checkpoint(
        path=file,
        node=Node(model, form.name),
        config_from=str(file),
        config=spellings.read(form.changes, section),
        tensors={},
        sidecars={},
        original={},
        folders=(file,),
    )


def _json(file: Path) -> dict[str, Any]:
    return _mapping(read_json(inside(file.parent, file.name)), file)


def _mapping(document: Any, file: Path) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise InputRefused(f"{file}: holds no mapping")
    return document
