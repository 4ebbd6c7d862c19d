"""CS checkpoints: a `.mdl` or safetensors with a params file, and the assets of what it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmconvert import manifest, params, registry, spellings
from mmconvert.containers import open_file, open_folder
from mmconvert.containers.shards import inside
from mmconvert.converter import Converter, Format
from mmconvert.documents import read_json, read_yaml
from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts.checkpoint import ASSETS, Checkpoint, Hints, is_sidecar
from mmconvert.paths import get
from mmconvert.registry import Node
from mmconvert.releases import Release
from mmconvert.sources import TensorRef
from mmconvert.spec import B, Config

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

        opened = mdl_read.read_file(inside(file.parent, file.name), str(file))
        tensors, metadata, set_aside, saved_by = opened.tensors, opened.metadata, opened.set_aside, opened.saved_by
    else:
        tensors, warning = open_file(file) if file is not None else open_folder(folder)
    document, params_from = _params(path, folder, hints.config, metadata)
    section = _section(document, params_from)
    converter, form = _known(section, params_from, hints, _said_names(folder, metadata))
    release, oldest, release_from = _release(document, section, converter, form)
    notes = [warning] if warning else []
    said = _said_release(hints.release, folder, metadata, saved_by)
    if said is not None:
        notes += _unknown_release(said, hints, converter)
        (release, release_from), oldest = said, said[0]
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
        notes=tuple(notes),
        set_aside=set_aside,
        release_from=release_from,
        params=document,
        params_release=oldest,
        bare=bare,
    )
    return checkpoint if hints.encoder is None else _encoder(checkpoint, hints.encoder)


def _section(document: Any, where: str) -> dict[str, Any]:
    """The model's own section of a params document."""
    try:
        return params.model_section(document)
    except ValueError as error:
        raise InputRefused(f"{where}: {error}; name the params file that describes the model with --config") from error


def _known(section: Config, where: str, hints: Hints, names: Sequence[str]) -> tuple[Converter, Format]:
    """The model that a section describes: the one that the user names, or the one whose name or shape it has.

    `names` are what the checkpoint is called elsewhere: before 2.4 a section need not say it.
    """
    sections = [section] if "name" in section else [*({**section, "name": name} for name in names), section]
    wanted = None if hints.encoder is not None else hints.model
    for each in sections:
        for converter in registry.converters():
            form = converter.b
            if wanted == converter.model or (wanted is None and not form.by_name and form.parts[""](each)):
                return converter, form
    raise InputRefused(f"{where}: model name {section.get('name')!r} is none that is known here (see `mmconvert list`)")


def _said_names(folder: Path, metadata: tuple[dict[str, Any], ...]) -> list[str]:
    """What the checkpoint's metadata and its manifest call the model."""
    said = [metadata[-1].get("model_name")] if metadata else []
    if (folder / manifest.NAME).is_file():
        said.append(get(read_json(inside(folder, manifest.NAME), manifest.LIMITS), "target.model"))
    return [name for name in said if isinstance(name, str) and name]


def _unknown_release(said: tuple[Release, str], hints: Hints, converter: Converter) -> list[str]:
    """What to tell of a release that is not known; one that the user names is refused."""
    (release, where), known = said, converter.b_releases
    if release in known:
        return []
    span = f"{converter.model} is known from {known[0]} to {known[-1]}"
    if release == hints.release:
        raise UsageError(f"{where} {release}: {span}")
    return [f"release {release}, by {where}, is not known here ({span}); it is read as the nearest"]


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
        config = get(whole.config, place.config)
        if not isinstance(config, Mapping):
            raise InputRefused(f"{whole.config_from}: {place.config} is no encoder's config")
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
            config=config,
            tensors=inner,
            sidecars=sidecars,
            original=whole.original.get(place.assets, {}),
            set_aside={**whole.set_aside, **others},
            # The rest of the params file is about training the whole.
            params={},
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
        return read_yaml(inside(given.parent, given.name)), str(given)
    if (folder / "config.yaml").is_file():
        return read_yaml(inside(folder, "config.yaml")), str(folder / "config.yaml")
    found = {file: read_yaml(inside(folder, file.name)) for file in sorted(folder.glob("*.y*ml"))}
    if len(found) > 1 or metadata:
        # Other tools keep settings of their own beside a checkpoint.
        found = {file: document for file, document in found.items() if _describes(document)}
    if len(found) == 1:
        ((file, document),) = found.items()
        return document, str(file)
    if metadata and isinstance(metadata[-1].get("params"), dict):
        return metadata[-1]["params"], f"{path} (its own metadata)"
    said = f"{len(found)} YAML files beside it do" if found else "no YAML file beside it does"
    raise UsageError(f"{path}: which params file describes it? {said}; name one with --config")


def _describes(document: Any) -> bool:
    """Whether a document has a model section."""
    try:
        return bool(params.model_section(document))
    except ValueError:
        return False


def _said_release(
    given: Release | None, folder: Path, metadata: tuple[dict[str, Any], ...], saved_by: str | None
) -> tuple[Release, str] | None:
    """The release, where the user or the checkpoint says it."""
    if given is not None:
        return given, "--from-release"
    said = [(metadata[-1].get("version"), "the checkpoint's metadata")] if metadata else []
    said.append((saved_by, "the container's format"))
    if (folder / manifest.NAME).is_file():
        document = read_json(inside(folder, manifest.NAME), manifest.LIMITS)
        said.append((get(document, "target.release"), manifest.NAME))
    for version, where in said:
        with suppress(ValueError):
            return Release.parse(str(version)), where
    return None


def _release(document: Config, section: Config, converter: Converter, form: Format) -> tuple[Release, Release, str]:
    """The newest release that may have written these params, the oldest one, and why."""
    candidates, reasons = params.releases(document, converter.b_releases)
    narrower, more = spellings.releases(form.changes, section, candidates)
    if narrower:
        candidates, reasons = narrower, [*reasons, *more]
    first, last = candidates[0], candidates[-1]
    span = str(last) if first == last else f"{first} to {last}"
    why = f"its params, which may be of {span}: {'; '.join(reasons)}"
    return last, first, why if reasons else f"nothing that says more than {span}"


def _assets(folder: Path, converter: Converter) -> dict[str, Path]:
    """The files in `assets/` that a Hugging Face checkpoint of this model may have beside its weights."""
    root = folder / ASSETS
    if not root.is_dir():
        return {}
    kept = {"config.json", *(name for name, _ in converter.home.companions.values())}
    parts = [part for part in converter.home.parts if part and (root / part).is_dir()]
    # They are folders of the checkpoint, and no links to others.
    folders = [inside(folder, ASSETS), *(inside(root, part) for part in parts)]
    files = (each for folder in folders for each in sorted(folder.iterdir()) if each.name in kept or is_sidecar(each))
    return {each.relative_to(root).as_posix(): inside(each.parent, each.name) for each in files}


def _original(assets: Mapping[str, Path], converter: Converter) -> Config:
    """The config that the checkpoint was made from, as it travelled in `assets/`; empty where none did."""
    parts = converter.home.parts
    found = {
        part: assets[name] for part in parts if (name := f"{part}/config.json" if part else "config.json") in assets
    }
    documents = {part: read_json(file) for part, file in found.items()}
    documents = {part: document for part, document in documents.items() if isinstance(document, dict)}
    if "" in parts:
        original: Config = documents.get("", {})
        return original
    return documents if len(documents) == len(parts) else {}
