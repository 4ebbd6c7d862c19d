"""The files of a target: weights laid out, configs written, carried files put where the format wants them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmconvert import tokenizers
from mmconvert.assembly import Assembly, prevailing
from mmconvert.casts import Overflow
from mmconvert.configs import ABSENT, ConfigTable, Fallback, Ignored, fields, get, put
from mmconvert.containers.layout import FileLayout
from mmconvert.documents import dump_json, dump_yaml, read_json, read_yaml
from mmconvert.errors import UsageError
from mmconvert.layouts import ASSETS, Checkpoint
from mmconvert.options import Options
from mmconvert.plan import OutputFile, PlannedTensor
from mmconvert.registry import Hop
from mmconvert.releases import Release
from mmconvert.scan import WIDER_THAN_FLOAT16, Float16Watch
from mmconvert.spec import A, Config

# Config files of the source; they travel to CS and stay behind on the way back, where a new one is written.
CONFIGS = ("config.json", "config_lmsys.json")
TOKENIZER = ("tokenizer", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template")


@dataclass(frozen=True)
class Target:
    """What lies in the target folder when all is done, but for the manifest."""

    outputs: tuple[OutputFile, ...]
    documents: Mapping[str, bytes]
    carried: tuple[str, ...]
    config: Config
    warnings: tuple[str, ...] = ()
    beyond_float16: Overflow = field(default_factory=Overflow)


def lay_out(
    assembly: Assembly, hop: Hop, release: Release | None, out: Path, checkpoint: Checkpoint, options: Options
) -> Target:
    """Lay the target of a path's last hop out. `out` is where it will stand, for configs that name their own place."""
    sidecars, warnings = _sidecars(assembly, checkpoint, hop, options)
    if hop.other == A:
        return _hugging_face(assembly, hop, out, checkpoint, options, sidecars, warnings)
    return _cerebras(assembly, hop, release, options, sidecars, warnings, checkpoint)


# --- CS ------------------------------------------------------------------------------------------------------------


def _cerebras(
    assembly: Assembly,
    hop: Hop,
    release: Release | None,
    options: Options,
    sidecars: Mapping[str, Path],
    warnings: list[str],
    checkpoint: Checkpoint,
) -> Target:
    section = assembly.legs[-1].configs.target
    params = _into_params(section, options.params)
    documents = {"config.yaml": dump_yaml(params)}
    metadata = {
        "version": f"{release}.0",
        "model_name": str(section.get("name", hop.converter.model)),
        "params": params,
    }
    if options.container == "mdl":
        from mmconvert.containers import mdl_write

        layouts, index = [mdl_write.lay_out("model.mdl", [t.outline for t in assembly.tensors], metadata)], None
    else:
        layouts, index = _safetensors(assembly.tensors, options)
    if index is not None:
        documents["model.safetensors.index.json"] = index
    forbidden = {
        path for row in hop.converter.configs.rows if isinstance(row, Ignored) and row.side == A for path in row.paths
    }
    for name, file in sidecars.items():
        documents[f"{ASSETS}/{name}"] = _without(file, name, forbidden)
    carried = tuple(f"{ASSETS}/{name}" for name in sidecars)
    return Target(_outputs(layouts, assembly.tensors), documents, carried, section, tuple(warnings))


def _into_params(section: Config, file: Path | None) -> dict[str, Any]:
    """The section as a params file of its own, or put into the user's in place of the one there."""
    if file is None:
        return {"model": section}
    params = read_yaml(file)
    if not isinstance(params, dict):
        raise UsageError(f"{file}: holds no mapping")
    where = "trainer.init.model" if "trainer" in params else "model"
    changed: dict[str, Any] = put(params, where, section)
    return changed


def _without(file: Path, name: str, forbidden: set[str]) -> bytes:
    """A carried file byte for byte; a config without what must not travel (code to run, paths of the machine)."""
    data = file.read_bytes()
    if not name.endswith("config.json") or name.endswith(("_config.json",)):
        return data
    config = read_json(file)
    part = name.removesuffix("config.json").replace("/", ".")
    inside = {path.removeprefix(part) for path in forbidden if path.startswith(part)} & set(config)
    return dump_json({key: value for key, value in config.items() if key not in inside}) if inside else data


# --- Hugging Face and LLaVA -----------------------------------------------------------------------------------------


def _hugging_face(
    assembly: Assembly,
    hop: Hop,
    out: Path,
    checkpoint: Checkpoint,
    options: Options,
    sidecars: Mapping[str, Path],
    warnings: list[str],
) -> Target:
    form, table = hop.target, hop.converter.configs
    config = form.settle(_restored(table, assembly.legs[-1].configs.target, checkpoint.original), checkpoint.original)
    folders = form.folders(config)
    outputs: list[OutputFile] = []
    documents: dict[str, bytes] = {}
    beyond = Overflow()
    for part in form.parts:
        inside = f"{part}/" if part else ""
        tensors = [replace(t, key=t.key.removeprefix(inside)) for t in assembly.tensors if t.key.startswith(inside)]
        if form.casts_to_float16:
            tensors = [_watched(tensor, beyond) for tensor in tensors]
        field = f"{part}.torch_dtype" if part else "torch_dtype"
        if field in form.dtype_fields:
            config = put(config, field, prevailing(tensors).name)
        layouts, index = _safetensors(tensors, options)
        below = f"{folders[part]}/" if folders[part] else ""
        outputs += [
            replace(output, layout=replace(output.layout, name=below + output.layout.name))
            for output in _outputs(layouts, tensors)
        ]
        if index is not None:
            documents[f"{below}model.safetensors.index.json"] = index
    for path, part in form.links.items():
        config = put(config, path, _tower_path(out / folders[part], folders[part], options.tower_path))
    carried = []
    for name, file in sidecars.items():
        part, _, base = name.rpartition("/")
        if base not in CONFIGS and part in folders:
            documents[_placed(folders, part, base)] = file.read_bytes()
            carried.append(_placed(folders, part, base))
    for name, document in form.documents(config).items():
        part, _, base = name.rpartition("/")
        documents.setdefault(_placed(folders, part, base), dump_json(document))
    for part in form.parts:
        part_config = config[part] if part else config
        documents[_placed(folders, part, "config.json")] = dump_json(dict(sorted(part_config.items())))
    for name, why in form.needs(config).items():
        part, _, base = name.rpartition("/")
        if _placed(folders, part, base) not in documents:
            warnings.append(f"{_placed(folders, part, base)} is missing: {why}")
    if not checkpoint.original and any(isinstance(row, Fallback) for row in table.rows):
        warnings.append("no original config travelled with the source: token ids and the like are LLaMA's usual ones")
    return Target(tuple(outputs), documents, tuple(carried), config, tuple(warnings), beyond)


def _watched(tensor: PlannedTensor, beyond: Overflow) -> PlannedTensor:
    if tensor.dtype not in WIDER_THAN_FLOAT16:
        return tensor
    return replace(tensor, source=Float16Watch(tensor.source, tensor.dtype, tensor.key, beyond))


def _placed(folders: Mapping[str, str], part: str, name: str) -> str:
    return f"{folders[part]}/{name}" if folders[part] else name


def _tower_path(absolute: Path, folder: str, wanted: str) -> str:
    """What a config says of its tower's place: loaders take it as it stands, from whatever folder they run in."""
    if wanted == "absolute":
        return str(absolute.absolute())
    return f"../{folder}" if wanted == "relative" else wanted


def _restored(table: ConfigTable, mapped: Config, original: Config) -> dict[str, Any]:
    """The mapped config with the original's other fields beside it; where they meet, the mapped field wins."""
    config: dict[str, Any] = dict(mapped)
    if original:
        spelled = table.a.spell(original, frozenset())
        owned = {path for rule in table.rules for path in rule.a}
        left_out = {path for row in table.rows if isinstance(row, Ignored) and row.side == A for path in row.paths}
        for path, value in fields(spelled, owned | left_out):
            if path not in owned | left_out and get(config, path) is ABSENT:
                config = put(config, path, value)
    for row in table.rows:
        if isinstance(row, Fallback) and get(config, row.path) is ABSENT:
            config = put(config, row.path, row.value)
    return config


# --- both ----------------------------------------------------------------------------------------------------------


def _safetensors(tensors: Sequence[PlannedTensor], options: Options) -> tuple[list[FileLayout], bytes | None]:
    from mmconvert.containers import safetensors

    return safetensors.lay_out_shards("model", [tensor.outline for tensor in tensors], options.max_shard_size)


def _outputs(layouts: Iterable[FileLayout], tensors: Sequence[PlannedTensor]) -> tuple[OutputFile, ...]:
    by_key = {tensor.key: tensor for tensor in tensors}
    return tuple(OutputFile(layout, tuple(by_key[key] for key in layout.slots)) for layout in layouts)


def _sidecars(
    assembly: Assembly, checkpoint: Checkpoint, hop: Hop, options: Options
) -> tuple[dict[str, Path], list[str]]:
    """The files that travel, with the user's tokenizer in place of the source's, and what is odd about them."""
    sidecars = dict(checkpoint.sidecars)
    place = hop.converter.a.tokenizer
    if place is None:
        return sidecars, []
    prefix = f"{place[0]}/" if place[0] else ""
    if options.tokenizer is not None:
        if not options.tokenizer.is_dir():
            raise UsageError(f"{options.tokenizer}: no such folder")
        sidecars = {name: file for name, file in sidecars.items() if not _is_tokenizer(name, prefix)}
        given = {prefix + file.name: file for file in sorted(options.tokenizer.iterdir()) if file.is_file()}
        found = {name: file for name, file in given.items() if _is_tokenizer(name, prefix)}
        if not found:
            raise UsageError(f"{options.tokenizer}: holds no tokenizer files")
        sidecars |= found
    mine = {name.removeprefix(prefix): file for name, file in sidecars.items() if _is_tokenizer(name, prefix)}
    ids, rows = tokenizers.length(mine), get(assembly.legs[-1].config_a, place[1])
    warnings = []
    if ids is not None and ids != rows:
        warnings.append(
            f"the tokenizer has {ids} ids, the embedding {rows} rows; loaders that resize it do so without a word"
        )
    return sidecars, warnings


def _is_tokenizer(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and name.removeprefix(prefix).startswith(TOKENIZER)
