"""CS checkpoints: a `.mdl` or safetensors with a params file, and the assets of what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmconvert import registry
from mmconvert.containers import open_file, open_folder
from mmconvert.containers.shards import inside
from mmconvert.converter import Converter
from mmconvert.documents import read_json, read_yaml
from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts.checkpoint import ASSETS, Checkpoint, Hints, is_sidecar
from mmconvert.paths import get
from mmconvert.registry import Node
from mmconvert.releases import Release
from mmconvert.sources import TensorRef
from mmconvert.spec import B, Config


def is_cs_file(path: Path, hints: Hints) -> bool:
    if path.suffix == ".mdl" or (hints.config is not None and hints.config.suffix in (".yaml", ".yml")):
        return True
    return not (path.parent / "config.json").is_file()


def recognise(path: Path, hints: Hints) -> Checkpoint:
    folder = path if path.is_dir() else path.parent
    file = path if path.is_file() else _only_mdl(path)
    metadata: tuple[dict[str, Any], ...] = ()
    tensors: Mapping[str, TensorRef]
    set_aside: Mapping[str, str] = {}
    warning = None
    if file is not None and file.suffix not in (".safetensors", ".bin", ".pt"):
        from mmconvert.containers import mdl_read

        opened = mdl_read.read_file(file, str(file))
        tensors, metadata, set_aside = opened.tensors, opened.metadata, opened.set_aside
    else:
        tensors, warning = open_file(file) if file is not None else open_folder(folder)
    params, params_from = _params(path, folder, hints.config, metadata)
    section = model_section(params)
    if section is None:
        raise InputRefused(f"{params_from}: has neither a `model:` section nor `trainer.init.model`")
    release, release_from = _release(hints.release, folder, metadata)
    for converter, side in registry.formats():
        form = converter.format(side)
        if side == B and hints.model in (None, converter.model) and (hints.model or form.parts[""](section)):
            assets = _assets(folder, converter)
            return Checkpoint(
                path=path,
                node=Node(converter.model, form.name, release),
                config_from=params_from,
                config=section,
                tensors=tensors,
                sidecars=assets,
                original=_original(assets, converter),
                folders=(path,),
                notes=(warning,) if warning else (),
                set_aside=set_aside,
                release_from=release_from,
            )
    raise InputRefused(
        f"{params_from}: model name {section.get('name')!r} is none that is known here (see `mmconvert list`)"
    )


def _only_mdl(folder: Path) -> Path | None:
    found = sorted(folder.glob("*.mdl"))
    if len(found) > 1 and folder / "model.mdl" not in found:
        raise UsageError(f"{folder}: holds {len(found)} .mdl files; name one, such as {found[-1]}")
    return folder / "model.mdl" if folder / "model.mdl" in found else next(iter(found), None)


def _params(path: Path, folder: Path, given: Path | None, metadata: tuple[dict[str, Any], ...]) -> tuple[Any, str]:
    """The params document of a CS checkpoint: the one given, the one beside it, or the one inside it."""
    if given is not None:
        if not given.is_file():
            raise UsageError(f"{given}: no such file")
        return read_yaml(given), str(given)
    beside = [folder / "config.yaml"] if (folder / "config.yaml").is_file() else sorted(folder.glob("*.y*ml"))
    if len(beside) == 1:
        return read_yaml(beside[0]), str(beside[0])
    if metadata and isinstance(metadata[-1].get("params"), dict):
        return metadata[-1]["params"], f"{path} (its own metadata)"
    found = f"{len(beside)} YAML files lie beside it" if beside else "no YAML file lies beside it"
    raise UsageError(f"{path}: which params file describes it? {found}; name it with --config")


def model_section(params: Any) -> dict[str, Any] | None:
    """The model's own section of a params file, flat (`model:`) or as the trainer has it (`trainer.init.model`)."""
    for where in ("trainer.init.model", "model"):
        section = get(params, where)
        if isinstance(section, dict):
            return section
    return None


def _release(given: Release | None, folder: Path, metadata: tuple[dict[str, Any], ...]) -> tuple[Release | None, str]:
    if given is not None:
        return given, "--from-release"
    said = [(metadata[-1].get("version"), "the checkpoint's metadata")] if metadata else []
    if (folder / "mmconvert.json").is_file():
        said.append((get(read_json(folder / "mmconvert.json"), "target.release"), "mmconvert.json"))
    for version, where in said:
        with suppress(ValueError):
            return Release.parse(str(version)), where
    return None, ""


def _assets(folder: Path, converter: Converter) -> dict[str, Path]:
    """The files in `assets/` that a Hugging Face checkpoint of this model may have beside its weights."""
    root = folder / ASSETS
    if not root.is_dir():
        return {}
    kept = {"config.json", *(name for name, _ in converter.a.companions.values())}
    folders = [root, *(root / part for part in converter.a.parts if part and (root / part).is_dir())]
    files = (each for folder in folders for each in sorted(folder.iterdir()) if each.name in kept or is_sidecar(each))
    return {each.relative_to(root).as_posix(): inside(each.parent, each.name) for each in files}


def _original(assets: Mapping[str, Path], converter: Converter) -> Config:
    """The config that the checkpoint was made from, as it travelled in `assets/`; empty where none did."""
    parts = converter.a.parts
    found = {
        part: assets[name] for part in parts if (name := f"{part}/config.json" if part else "config.json") in assets
    }
    documents = {part: read_json(file) for part, file in found.items()}
    documents = {part: document for part, document in documents.items() if isinstance(document, dict)}
    if "" in parts:
        original: Config = documents.get("", {})
        return original
    return documents if len(documents) == len(parts) else {}
