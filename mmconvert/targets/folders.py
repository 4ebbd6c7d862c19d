"""Hugging Face and LLaVA targets: a folder for each part of the format, or one for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmconvert.assembly import prevailing
from mmconvert.casts import Overflow
from mmconvert.configs import ConfigTable
from mmconvert.converter import Usage
from mmconvert.documents import dump_json
from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts.checkpoint import is_licence
from mmconvert.options import TOWER_PATH
from mmconvert.paths import ABSENT, fields, get, put
from mmconvert.plans import OutputFile, PlannedTensor
from mmconvert.rules import Fallback
from mmconvert.scan import WIDER_THAN_FLOAT16, Float16Watch
from mmconvert.spec import Config
from mmconvert.targets import card
from mmconvert.targets.job import Job, Target, never_written
from mmconvert.targets.sidecars import Sidecars, tokenizer_files
from mmconvert.targets.weights import outputs, safetensors, torch_bin


def folders_of_parts(job: Job, sidecars: Sidecars) -> Target:
    """Every part of the format in its folder, or the one that is wanted alone."""
    config = _whole_config(job)
    return _all(job, config, sidecars) if job.options.only is None else _one(job, config, sidecars)


def _whole_config(job: Job) -> Config:
    form, table, original = job.hop.target, job.hop.converter.configs, job.checkpoint.original
    mapped = job.assembly.legs[-1].configs.target
    try:
        own = original if form.binding is None or not original else form.binding.own_config(original)
        return form.settle(_restored(table, mapped, own), original)
    except ValueError as error:
        # The mapped config is sound, and so is a source's own; one that travelled along was not looked at before.
        raise InputRefused(f"{job.checkpoint.path}: the config.json that it was made from: {error}") from error


def _all(job: Job, config: Config, sidecars: Sidecars) -> Target:
    form, original, warnings = job.hop.target, job.checkpoint.original, [*sidecars.warnings]
    folders = form.folders(config)
    written: list[OutputFile] = []
    documents: dict[str, bytes] = {}
    beyond = Overflow()
    for part in form.parts:
        tensors = _of_part(job, part, beyond)
        field = f"{part}.torch_dtype" if part else "torch_dtype"
        if field in form.dtype_fields:
            config = put(config, field, prevailing(tensors).name)
        layouts, index = safetensors(tensors, job.options)
        layouts = [replace(layout, name=_placed(folders, f"{part}/{layout.name}")) for layout in layouts]
        written += outputs(layouts, tensors)
        if index is not None:
            documents[_placed(folders, f"{part}/model.safetensors.index.json")] = index
    for path, part in form.links.items():
        wanted = job.options.tower_path or TOWER_PATH
        config = put(config, path, _tower_path(job.out / folders[part], folders[part], wanted))
    beside = {name: data for name, data in sidecars.files.items() if name.rpartition("/")[2] not in job.configs}
    if form.binding is not None:
        bound, told = form.binding.together(config, beside)
        beside, warnings = dict(bound), [*warnings, *told]
    beside |= tokenizer_files(form, beside)
    # A licence of the whole stands beside the folders of its parts.
    carried = {_placed({"": "", **folders}, name): data for name, data in beside.items() if _has_place(name, folders)}
    documents |= carried
    for name, document in form.documents(config).items():
        documents.setdefault(_placed(folders, name), dump_json(document))
    for part in form.parts:
        documents[_placed(folders, f"{part}/config.json")] = dump_json(_in_order(get(config, part)))
    for name, why in form.needs(config).items():
        if _placed(folders, name) not in documents:
            warnings.append(f"{_placed(folders, name)} is missing: {why}")
    documents |= _card(job, written, form.usage(config))
    if not original and any(isinstance(row, Fallback) for row in job.hop.converter.configs.rows):
        warnings.append("no original config travelled with the source: token ids and the like are the usual ones")
    return Target(tuple(written), documents, sidecars.unchanged(carried), tuple(warnings), beyond)


def _one(job: Job, config: Config, sidecars: Sidecars) -> Target:
    """The folder of one part, which stands where the whole would."""
    form, beyond, warnings = job.hop.target, Overflow(), [*sidecars.warnings]
    alone = form.alone[job.options.only or ""]
    prefix = f"{alone.folder}/"
    tensors = _of_part(job, alone.folder, beyond)
    own = {**alone.config(config), "torch_dtype": prevailing(tensors).name}
    if alone.tower is not None:
        # No tower is written beside it.
        wanted = job.options.tower_path
        if wanted == "absolute":
            raise UsageError(
                f"--tower-path absolute: no tower is written beside the {job.options.only}; name its folder"
            )
        own[alone.tower] = alone.beside if wanted in (None, "relative") else wanted
        if wanted is None:
            told = f"{alone.tower} is {alone.beside} in its config: --tower-path says where the tower will stand"
            warnings.append(told)
    carried = {
        name.removeprefix(prefix): data
        for name, data in sidecars.files.items()
        if name.startswith(prefix) and (alone.whole or is_licence(name.removeprefix(prefix)))
    }
    carried = {name: data for name, data in carried.items() if name not in job.configs}
    documents = dict(carried)
    for name, document in form.documents(config).items():
        if name.startswith(prefix) and alone.whole:
            documents.setdefault(name.removeprefix(prefix), dump_json(document))
    documents["config.json"] = dump_json(_in_order(own))
    if (job.options.container or alone.container) == "bin":
        layouts, index = [torch_bin(tensors, alone.weights)], None
    else:
        layouts, index = safetensors(tensors, job.options, alone.weights)
    if index is not None:
        documents[f"{alone.weights}.safetensors.index.json"] = index
    written = outputs(layouts, tensors)
    documents |= _card(job, written, alone.usage(config))
    return Target(written, documents, sidecars.unchanged(carried), tuple(warnings), beyond)


def _card(job: Job, written: Sequence[OutputFile], usages: Sequence[Usage]) -> dict[str, bytes]:
    """The model card; a checkpoint that was drawn, and comes from nowhere, has none."""
    return {card.NAME: card.card(job, written, usages)} if job.checkpoint.tensors else {}


def _of_part(job: Job, part: str, beyond: Overflow) -> list[PlannedTensor]:
    """The tensors of a part, by their names within it; watched where readers will cast them."""
    prefix = f"{part}/" if part else ""
    tensors = [each for each in job.assembly.tensors if each.key.startswith(prefix)]
    tensors = [replace(each, key=each.key.removeprefix(prefix)) for each in tensors]
    return [_watched(each, beyond) for each in tensors] if job.hop.target.casts_to_float16 else tensors


def _watched(tensor: PlannedTensor, beyond: Overflow) -> PlannedTensor:
    if tensor.dtype not in WIDER_THAN_FLOAT16:
        return tensor
    return replace(tensor, source=Float16Watch(tensor.source, tensor.dtype, tensor.key, beyond))


def _in_order(config: Any) -> Any:
    """A config with its fields in alphabetical order, at every depth."""
    if isinstance(config, Mapping):
        return {name: _in_order(value) for name, value in sorted(config.items())}
    return config


def _has_place(name: str, folders: Mapping[str, str]) -> bool:
    return name.rpartition("/")[0] in folders or is_licence(name)


def _placed(folders: Mapping[str, str], name: str) -> str:
    """Where a file that is named by its part goes: into the part's folder."""
    part, _, base = name.rpartition("/")
    return f"{folders[part]}/{base}" if folders[part] else base


def _tower_path(absolute: Path, folder: str, wanted: str) -> str:
    """What a config says of its tower's place: loaders take it as it stands, from whatever folder they run in."""
    if wanted == "absolute":
        path = str(absolute.absolute())
        if not path.isprintable():
            raise UsageError(f"{path!r}: a config cannot hold this path; choose another --out or --tower-path")
        return path
    return f"../{folder}" if wanted == "relative" else wanted


def _restored(table: ConfigTable, mapped: Config, original: Config) -> dict[str, Any]:
    """The mapped config with the original's other fields beside it; where they meet, the mapped field wins."""
    config: dict[str, Any] = dict(mapped)
    if original:
        spelled = table.a.spell(original, frozenset())
        owned = {path for rule in table.rules for path in rule.a}
        left_out = never_written(table)
        for path, value in fields(spelled, owned | left_out):
            if path not in owned | left_out and get(config, path) is ABSENT:
                config = put(config, path, value)
    for row in table.rows:
        if isinstance(row, Fallback) and get(config, row.path) is ABSENT:
            config = put(config, row.path, row.value)
    return config
