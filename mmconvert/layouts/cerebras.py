"""CS checkpoints: a `.mdl` or safetensors with a params file, and the assets of what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmconvert import params, registry, spellings
from mmconvert.containers import open_file, open_folder
from mmconvert.containers.shards import inside
from mmconvert.converter import Converter, Format
from mmconvert.documents import read_json, read_yaml
from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts.checkpoint import ASSETS, Checkpoint, Hints, is_sidecar
from mmconvert.paths import get
from mmconvert.registry import Node
from mmconvert.releases import NEWEST, OLDEST, TRAINER, Release
from mmconvert.sources import TensorRef
from mmconvert.spec import B, Config

# What stands beside `model` in the params files of before `trainer`.
FLAT_SECTIONS = {"optimizer", "runconfig", "train_input", "eval_input"}


YAML = (".yaml", ".yml")


def is_cs_file(path: Path, hints: Hints) -> bool:
    if path.suffix in (".mdl", *YAML) or (hints.config is not None and hints.config.suffix in YAML):
        return True
    return not (path.parent / "config.json").is_file()


def recognise(path: Path, hints: Hints) -> Checkpoint:
    folder = path if path.is_dir() else path.parent
    file = path if path.is_file() else _only_mdl(path)
    metadata: tuple[dict[str, Any], ...] = ()
    tensors: Mapping[str, TensorRef]
    set_aside: Mapping[str, str] = {}
    warning = saved_by = None
    bare = file is not None and file.suffix in YAML
    if bare:
        tensors, hints = {}, replace(hints, config=file)
    elif file is not None and file.suffix not in (".safetensors", ".bin", ".pt"):
        from mmconvert.containers import mdl_read

        opened = mdl_read.read_file(file, str(file))
        tensors, metadata, set_aside, saved_by = opened.tensors, opened.metadata, opened.set_aside, opened.saved_by
    else:
        tensors, warning = open_file(file) if file is not None else open_folder(folder)
    document, params_from = _params(path, folder, hints.config, metadata)
    said = _said_release(hints.release, folder, metadata, saved_by)
    section = _section(document, params_from, said)
    converter, form = _known(section, params_from, hints)
    release, release_from = said or _release(document, section, converter, form)
    assets = {} if bare else _assets(folder, converter)
    checkpoint = Checkpoint(
        path=path,
        node=Node(converter.model, form.name, release),
        config_from=params_from,
        config=spellings.read(form.changes, section),
        tensors=tensors,
        sidecars=assets,
        original=_original(assets, converter),
        folders=(path,),
        notes=(warning,) if warning else (),
        set_aside=set_aside,
        release_from=release_from,
        params=document,
        bare=bare,
    )
    return checkpoint if hints.encoder is None else _encoder(checkpoint, hints.encoder)


def _section(document: Any, where: str, said: tuple[Release, str] | None) -> dict[str, Any]:
    """The model's own section of a params document, in the words of the newest release but for its model's changes."""
    if not isinstance(document, Mapping):
        raise InputRefused(f"{where}: holds no mapping")
    try:
        # Of an unknown release: what the oldest ones spelled otherwise is taken along, and the rest stays.
        upgraded, _ = params.convert(document, said[0] if said else OLDEST, NEWEST)
    except ValueError as error:
        raise InputRefused(f"{where}: {error}") from error
    section = model_section(upgraded)
    if section is None:
        raise InputRefused(f"{where}: has neither a `model:` section nor `trainer.init.model`")
    return section


def _known(section: Config, where: str, hints: Hints) -> tuple[Converter, Format]:
    """The model that a section describes: the one that the user names, or the one whose shape it has."""
    for converter, side in registry.formats():
        form = converter.format(side)
        named = hints.model == converter.model
        if side == B and (named or (hints.model is None and not form.by_name and form.parts[""](section))):
            return converter, form
    raise InputRefused(f"{where}: model name {section.get('name')!r} is none that is known here (see `mmconvert list`)")


def _encoder(whole: Checkpoint, number: int) -> Checkpoint:
    """One encoder of a multimodal checkpoint, as a checkpoint of its own; the rest is set aside."""
    for converter, side in registry.formats():
        form = converter.format(side)
        places = form.inside(whole.config) if side == B and form.inside is not None else ()
        if not places:
            continue
        if number >= len(places):
            raise UsageError(f"--encoder {number}: {whole.path} has {len(places)}, counted from 0")
        place = places[number]
        found = {key.removeprefix("model."): ref for key, ref in whole.tensors.items()}
        inner = {key.removeprefix(place.keys): ref for key, ref in found.items() if key.startswith(place.keys)}
        others = {
            ref.key: "belongs to another part of the model"
            for key, ref in found.items()
            if not key.startswith(place.keys)
        }
        prefix = f"{place.assets}/"
        sidecars = {name.removeprefix(prefix): file for name, file in whole.sidecars.items() if name.startswith(prefix)}
        return replace(
            whole,
            node=Node(converter.model, form.name, whole.node.release),
            config_from=f"{whole.config_from} at {place.config}",
            config=get(whole.config, place.config),
            tensors=inner,
            sidecars=sidecars,
            original=whole.original.get(place.assets, {}),
            set_aside={**whole.set_aside, **others},
        )
    raise UsageError(f"--encoder: {whole.path} is a {whole.node.model}, which has no list of encoders")


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


def _said_release(
    given: Release | None, folder: Path, metadata: tuple[dict[str, Any], ...], saved_by: str | None
) -> tuple[Release, str] | None:
    """The release, where the user or the checkpoint says it."""
    if given is not None:
        return given, "--from-release"
    said = [(metadata[-1].get("version"), "the checkpoint's metadata")] if metadata else []
    said.append((saved_by, "the container's format"))
    if (folder / "mmconvert.json").is_file():
        said.append((get(read_json(folder / "mmconvert.json"), "target.release"), "mmconvert.json"))
    for version, where in said:
        with suppress(ValueError):
            return Release.parse(str(version)), where
    return None


def _release(document: Config, section: Config, converter: Converter, form: Format) -> tuple[Release | None, str]:
    """The newest release that may have written these params, and why."""
    candidates, reasons = spellings.releases(form.changes, section, converter.b_releases)
    if "trainer" in document:
        candidates = [each for each in candidates if each >= TRAINER]
        reasons.append(f"since {TRAINER} params stand under `trainer`")
    elif document.keys() & FLAT_SECTIONS:
        candidates = [each for each in candidates if each < TRAINER]
        reasons.append(f"before {TRAINER} params are flat")
    if not candidates:
        return None, "nothing: its params mix the spellings of several releases"
    first, last = candidates[0], candidates[-1]
    span = str(last) if first == last else f"{first} to {last}"
    return (
        last,
        f"its params, which may be of {span}: {'; '.join(reasons)}"
        if reasons
        else f"nothing that says more than {span}",
    )


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
