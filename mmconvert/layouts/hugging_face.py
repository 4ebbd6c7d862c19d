"""Folders with a `config.json`: Hugging Face models, hub cache folders, and the two folders of a LLaVA."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from mmconvert import registry
from mmconvert.containers import open_file, open_folder, weight_files
from mmconvert.containers.shards import inside
from mmconvert.converter import Converter, Format
from mmconvert.documents import read_json
from mmconvert.errors import InputRefused, UsageError
from mmconvert.excerpt import excerpt
from mmconvert.layouts.checkpoint import NO_HINTS, Checkpoint, Hints, is_licence, is_sidecar, readable
from mmconvert.paths import get
from mmconvert.registry import Node
from mmconvert.sources import TensorRef
from mmconvert.spec import B, Config


def snapshot(path: Path) -> Path:
    """The newest snapshot of a hub cache folder (`models--org--name`); other paths as they are.

    Raises UsageError where it is the user's to choose, InputRefused where it cannot be read or leads out of the folder.
    """
    # os.path says of any name whether it is a folder's; pathlib raises for one that is too long.
    if not os.path.isdir(path / "snapshots"):
        return path
    with readable(path):
        snapshots = inside(path, "snapshots")
        if (path / "refs" / "main").is_file():
            reference = inside(inside(path, "refs"), "main")
            revision = reference.read_bytes()[:100].decode("ascii", "replace").strip()
            for each in snapshots.iterdir():
                if each.name == revision and each.is_dir():
                    return inside(snapshots, revision)
        found = [each for each in snapshots.iterdir() if each.is_dir()]
    if len(found) != 1:
        raise UsageError(f"{path}: holds {len(found)} snapshots and no refs/main; name one of {snapshots}")
    return inside(snapshots, found[0].name)


def refuse_adapters(folder: Path) -> None:
    """Folders that hold less than a model: say what they are and what to do."""
    if (folder / "adapter_config.json").is_file():
        raise InputRefused(f"{folder}: a LoRA adapter; merge it into its base model first, then convert the result")
    for _, form in _candidates(NO_HINTS, several=True):
        for name, what in form.fragments.items():
            if (folder / name).is_file() and not weight_files(folder):
                raise InputRefused(f"{folder}: {what}")


def _candidates(hints: Hints, several: bool) -> Iterable[tuple[Converter, Format]]:
    """Formats that a source may be in, side by side with their converter; the user's hints narrow them."""
    for converter, side in registry.formats():
        form = converter.format(side)
        if side == B or (len(form.parts) > 1) != several:
            continue
        if hints.model is None and form.by_name:
            continue
        if hints.model in (None, converter.model) and hints.format in (None, form.name):
            yield converter, form


def single_folder(folder: Path, hints: Hints, weights: Path | None = None) -> Checkpoint:
    """A folder with a `config.json`: one model, or the text part of one whose other part lies elsewhere."""
    refuse_adapters(folder)
    config = config_of(folder)
    for converter, form in _candidates(hints, several=False):
        if form.parts[""](config):
            return _checkpoint(folder, Node(converter.model, form.name), form, {"": folder}, weights)
    for converter, form in _candidates(hints, several=True):
        if not form.links:
            continue
        held = {part for part, known in form.parts.items() if known(config)}
        wanted = {part for part in form.links.values() if part not in held}
        if held and wanted | held == set(form.parts):
            parts = dict.fromkeys(held, folder)
            parts |= {part: _linked_folder(folder, config, form, part, hints.vision_tower) for part in wanted}
            return _checkpoint(folder, Node(converter.model, form.name), form, parts, weights)
    what = f"{folder / 'config.json'}: model_type {_kind(config)!r}"
    if hints.model is not None or hints.format is not None:
        raise InputRefused(
            f"{what} is no {hints.model or 'model'} in format {hints.format or 'hf'}: leave the hint out"
        )
    kind = str(config.get("model_type"))
    known = {name: why for _, form in _candidates(hints, several=False) for name, why in form.strangers.items()}
    if kind in known:
        raise InputRefused(f"{what}: {known[kind]}")
    raise InputRefused(f"{what} is none that is known here (see `mmconvert list`)")


def _linked_folder(folder: Path, config: Config, form: Format, part: str, given: Path | None) -> Path:
    """The folder of a part that a config field points to: as given, as it says, or beside the folder."""
    if given is not None:
        return _tower(given, form, part)
    field = next(path for path, target in form.links.items() if target == part).partition(".")[2]
    value = get(config, field)
    candidates = [folder.parent / part]
    if isinstance(value, str) and value:
        # Loaders take a relative one from the folder that they are started in, which may be this one.
        as_said = [Path(value)] if Path(value).is_absolute() else [folder / value, folder.parent / value, Path(value)]
        candidates = [*as_said, folder.parent / Path(value).name, *candidates]
    for candidate in candidates:
        found = snapshot(candidate)
        if os.path.isfile(found / "config.json") and form.parts[part](config_of(found)):
            return found
    raise InputRefused(
        f"{folder}: its {part} ({field} is {excerpt(repr(value))}) is not found; name its folder with --vision-tower "
        "(that of a hub's cache will do)"
    )


def several_folders(path: Path, hints: Hints) -> Checkpoint:
    """A folder of folders: each is known by its config, whatever it is called."""
    folders = [snapshot(each) for each in sorted(path.iterdir()) if each.is_dir()] if path.is_dir() else []
    configs = {each: config_of(each) for each in folders if (each / "config.json").is_file()}
    near_misses: list[str] = []
    strangers = dict(configs)
    for converter, form in _candidates(hints, several=True):
        found = {part: [each for each in configs if known(configs[each])] for part, known in form.parts.items()}
        if hints.vision_tower is not None:
            found |= {part: [_tower(hints.vision_tower, form, part)] for part in found if part == form.tower}
        if all(len(each) == 1 for each in found.values()):
            parts = {part: each[0] for part, each in found.items()}
            return _checkpoint(path, Node(converter.model, form.name), form, parts)
        strangers = {each: config for each, config in strangers.items() if each not in chain(*found.values())}
        if any(found.values()):
            near_misses += [
                f"{len(each)} folders for {part}" + (f" ({', '.join(e.name for e in each)})" if each else "")
                for part, each in found.items()
                if len(each) != 1
            ]
    if near_misses:
        unknown = "".join(f"; {each.name} says model_type {_kind(config)!r}" for each, config in strangers.items())
        raise InputRefused(f"{path}: needs one folder of each part, but has {near_misses[0]}{unknown}")
    raise InputRefused(f"{path}: no checkpoint is recognised here: no config.json, no .mdl, no folders that hold them")


def _tower(folder: Path, form: Format, part: str) -> Path:
    """The folder that a user named for a part, if it is one."""
    found = snapshot(folder)
    if not (found / "config.json").is_file() or not form.parts[part](config_of(found)):
        raise InputRefused(f"{folder}: --vision-tower names no {part}: its config.json is missing or another model's")
    return found


def _kind(config: Config) -> Any:
    """What a config that nobody knows says it is."""
    return config.get("model_type") or config.get("architectures") or "nothing"


def config_of(folder: Path) -> dict[str, Any]:
    """The `config.json` of a folder. Raises InputRefused where it is none, or leads out of the folder."""
    return _mapping(folder, "config.json")


def _mapping(folder: Path, name: str) -> dict[str, Any]:
    config = read_json(inside(folder, name))
    if not isinstance(config, dict):
        raise InputRefused(f"{folder / name}: holds no mapping")
    return config


def _checkpoint(
    path: Path, node: Node, form: Format, parts: Mapping[str, Path], weights: Path | None = None
) -> Checkpoint:
    tensors: dict[str, TensorRef] = {}
    sidecars: dict[str, Path] = {}
    configs: dict[str, Any] = {}
    notes: list[str] = []
    for part, folder in parts.items():
        prefix = f"{part}/" if part else ""
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
        configs[part], companion_files = _with_companion(folder, form, part, notes)
        found, warning = open_file(weights) if weights is not None else open_folder(folder)
        notes += [warning] if warning else []
        tensors |= {prefix + key: replace(ref, key=prefix + key) for key, ref in found.items()}
        sidecars |= {prefix + name: file for name, file in _sidecars(folder).items()}
        sidecars |= {prefix + file.name: file for file in (folder / "config.json", *companion_files)}
    if len(parts) > 1 and path.is_dir():
        # Of the whole, beside the folders of its parts.
        licences = {name: file for name, file in _sidecars(path).items() if is_licence(name)}
        sidecars |= {} if path in parts.values() else licences
    whole = configs.get("", configs)
    return Checkpoint(
        path=path,
        node=node,
        config_from=", ".join(str(folder / "config.json") for folder in parts.values()),
        config=whole,
        tensors=tensors,
        sidecars=sidecars,
        original=whole if form.binding is None else form.binding.home_config(whole),
        folders=tuple(dict.fromkeys((path, *parts.values()))),
        notes=tuple(notes),
    )


def _with_companion(folder: Path, form: Format, part: str, notes: list[str]) -> tuple[dict[str, Any], list[Path]]:
    """A part's config, with what a second file beside it adds; the two are checked against each other."""
    config = config_of(folder)
    if part not in form.companions:
        return config, []
    name, merge = form.companions[part]
    if not (folder / name).is_file():
        return config, []
    try:
        merged, remarks = merge(config, _mapping(folder, name))
    except ValueError as error:
        raise InputRefused(f"{folder / 'config.json'} and {name} beside it disagree: {error}") from error
    notes += [f"{name}: {remark}" for remark in remarks]
    return merged, [folder / name]


def _sidecars(folder: Path) -> dict[str, Path]:
    return {each.name: inside(folder, each.name) for each in sorted(folder.iterdir()) if is_sidecar(each)}
