"""The files of a target: weights laid out, configs written, carried files put where the format wants them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmconvert import params, spellings, tokenizers
from mmconvert.assembly import Assembly, prevailing
from mmconvert.casts import Overflow
from mmconvert.configs import ConfigTable
from mmconvert.containers.layout import FileLayout
from mmconvert.containers.shards import inside
from mmconvert.converter import Format
from mmconvert.documents import dump_json, dump_yaml, parse_json, read_yaml
from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts.checkpoint import ASSETS, Checkpoint, is_sidecar
from mmconvert.options import CONTAINER, SHARD_SIZE, TOWER_PATH, Options
from mmconvert.paths import ABSENT, fields, get, put
from mmconvert.plans import OutputFile, PlannedTensor
from mmconvert.registry import Hop
from mmconvert.releases import NEWEST, Release
from mmconvert.remark import Remark
from mmconvert.rules import Fallback, Ignored
from mmconvert.scan import WIDER_THAN_FLOAT16, Float16Watch
from mmconvert.spec import A, Config
from mmconvert.tokenizers import Files

# The release whose .mdl files are of the format that is written.
CONTAINER_SINCE = Release(2, 1)
TOKENIZER = ("tokenizer", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template")


@dataclass(frozen=True)
class Target:
    """What lies in the target folder when all is done, but for the manifest.

    Of a params file, `dropped` are fields that found no place, and `kept` those of the model section that stayed.
    """

    outputs: tuple[OutputFile, ...]
    documents: Mapping[str, bytes]
    carried: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    beyond_float16: Overflow = field(default_factory=Overflow)
    dropped: tuple[Remark, ...] = ()
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A conversion whose tensors are known and whose files are not yet: `out` is where the target will stand."""

    checkpoint: Checkpoint
    hop: Hop
    release: Release | None
    out: Path
    options: Options
    assembly: Assembly

    @property
    def source(self) -> Format:
        """The format that the path leads from."""
        return self.assembly.legs[0].hop.source

    @property
    def configs(self) -> set[str]:
        """Names of config files: they travel to CS, and stay behind on the way back, where new ones are written."""
        return {"config.json", *(name for name, _ in self.hop.converter.home.companions.values())}


def lay_out(job: Job) -> Target:
    """Lay the target of a path's last hop out."""
    sidecars, warnings = _sidecars(job)
    return _hugging_face(job, sidecars, warnings) if job.hop.other == A else _cerebras(job, sidecars, warnings)


# --- CS ------------------------------------------------------------------------------------------------------------


def _cerebras(job: Job, sidecars: Files, warnings: list[str]) -> Target:
    canonical, tensors = job.assembly.legs[-1].configs.target, job.assembly.tensors
    release = job.release or NEWEST
    document, dropped, kept = _params(job, canonical, release)
    documents = {"config.yaml": dump_yaml(document)}
    layouts: Sequence[FileLayout] = ()
    if not job.checkpoint.bare:
        layouts, index = _weights(job, document, str(canonical.get("name", job.hop.converter.model)), release)
        documents |= index
    if layouts and release < CONTAINER_SINCE and (job.options.container or CONTAINER) == "mdl":
        warnings.append(
            f"release {release} itself writes and reads an older .mdl; this one is of format 0.5, for 2.1 and later"
        )
    for name, data in sidecars.items():
        documents[f"{ASSETS}/{name}"] = _without_strangers(job, data, name)
    carried = _unchanged(job, {name: documents[name] for name in (f"{ASSETS}/{each}" for each in sidecars)})
    return Target(_outputs(layouts, tensors), documents, carried, tuple(warnings), dropped=dropped, kept=kept)


def _weights(
    job: Job, document: Config, name: str, release: Release
) -> tuple[Sequence[FileLayout], Mapping[str, bytes]]:
    """The files of a CS checkpoint's tensors, and the index that leads to them where there is one."""
    if (job.options.container or CONTAINER) == "mdl":
        from mmconvert.containers import mdl_write

        metadata = {"version": f"{release}.0", "model_name": name, "params": document}
        outlines = [tensor.outline for tensor in job.assembly.tensors]
        return [mdl_write.lay_out("model.mdl", outlines, metadata)], {}
    layouts, index = _safetensors(job.assembly.tensors, job.options)
    return layouts, {} if index is None else {"model.safetensors.index.json": index}


def _params(
    job: Job, canonical: Config, release: Release
) -> tuple[dict[str, Any], tuple[Remark, ...], tuple[str, ...]]:
    """The params file of the target: the user's, the source's own at the release that is written, or a new one.

    With it, what of it was dropped, and which fields of its model section stayed.
    """
    source, given, form = job.checkpoint, job.options.params, job.hop.target
    section = spellings.write(form.changes, canonical, release)
    if given is None and not source.params:
        return {"model": section}, (), ()
    document = source.params if given is None else read_yaml(given)
    try:
        # The user's own file says its release by its spelling alone.
        release_of = source.params_release if given is None else params.oldest(document, release)
        converted, dropped = params.convert(document, release_of or release, release)
        kept = {} if given is None else params.model_fields(converted, form.of_training)
        if kept:
            job.hop.converter.configs.space(job.hop.other).read({**canonical, **kept})
        return params.with_section(converted, {**section, **kept}), dropped, tuple(kept)
    except ValueError as error:
        if given is not None:
            raise UsageError(f"{given}: {error}") from error
        raise InputRefused(f"{source.config_from}: {error}") from error


def _without_strangers(job: Job, data: bytes, name: str) -> bytes:
    """A carried file byte for byte; a config without what must not travel (code to run, paths of the machine)."""
    part, _, base = name.rpartition("/")
    if base not in job.configs:
        return data
    config = parse_json(data, name)
    prefix = f"{part}." if part else ""
    strangers = _ignored(job.hop.converter.configs) & {prefix + key for key in config}
    kept = {key: value for key, value in config.items() if prefix + key not in strangers}
    return dump_json(kept) if strangers else data


def _ignored(table: ConfigTable) -> set[str]:
    """The fields of side a that are never written."""
    return {path for row in table.rows if isinstance(row, Ignored) and row.side == A for path in row.paths}


# --- Hugging Face and LLaVA -----------------------------------------------------------------------------------------


def _hugging_face(job: Job, sidecars: Files, warnings: list[str]) -> Target:
    form, table, original = job.hop.target, job.hop.converter.configs, job.checkpoint.original
    own = original if form.binding is None or not original else form.binding.own_config(original)
    config = form.settle(_restored(table, job.assembly.legs[-1].configs.target, own), original)
    folders = form.folders(config)
    outputs: list[OutputFile] = []
    documents: dict[str, bytes] = {}
    beyond = Overflow()
    for part in form.parts:
        tensors = _of_part(job, part, beyond)
        field = f"{part}.torch_dtype" if part else "torch_dtype"
        if field in form.dtype_fields:
            config = put(config, field, prevailing(tensors).name)
        layouts, index = _safetensors(tensors, job.options)
        layouts = [replace(layout, name=_placed(folders, f"{part}/{layout.name}")) for layout in layouts]
        outputs += _outputs(layouts, tensors)
        if index is not None:
            documents[_placed(folders, f"{part}/model.safetensors.index.json")] = index
    for path, part in form.links.items():
        wanted = job.options.tower_path or TOWER_PATH
        config = put(config, path, _tower_path(job.out / folders[part], folders[part], wanted))
    beside = {name: data for name, data in sidecars.items() if name.rpartition("/")[2] not in job.configs}
    if form.binding is not None:
        beside = dict(form.binding.together(config, beside))
    carried = {_placed(folders, name): data for name, data in beside.items() if name.rpartition("/")[0] in folders}
    documents |= carried
    for name, document in form.documents(config).items():
        documents.setdefault(_placed(folders, name), dump_json(document))
    for part in form.parts:
        documents[_placed(folders, f"{part}/config.json")] = dump_json(_in_order(get(config, part)))
    for name, why in form.needs(config).items():
        if _placed(folders, name) not in documents:
            warnings.append(f"{_placed(folders, name)} is missing: {why}")
    if not original and any(isinstance(row, Fallback) for row in table.rows):
        warnings.append("no original config travelled with the source: token ids and the like are the usual ones")
    return Target(tuple(outputs), documents, _unchanged(job, carried), tuple(warnings), beyond)


def _unchanged(job: Job, files: Files) -> tuple[str, ...]:
    """The names of those files that are byte for byte what the source has, or the tokenizer that the user gave."""
    known = set(tokenizers.read(job.checkpoint.sidecars).values())
    given = job.options.tokenizer
    known |= set() if given is None else set(tokenizers.read(_tokenizer_in(given)).values())
    return tuple(name for name, data in files.items() if data in known)


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
        left_out = _ignored(table)
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

    outlines = [tensor.outline for tensor in tensors]
    return safetensors.lay_out_shards("model", outlines, options.max_shard_size or SHARD_SIZE)


def _outputs(layouts: Iterable[FileLayout], tensors: Sequence[PlannedTensor]) -> tuple[OutputFile, ...]:
    by_key = {tensor.key: tensor for tensor in tensors}
    return tuple(OutputFile(layout, tuple(by_key[key] for key in layout.slots)) for layout in layouts)


def _sidecars(job: Job) -> tuple[Files, list[str]]:
    """The files that travel, as the home of a checkpoint has them, and what is odd about them.

    The user's tokenizer stands in place of the source's.
    """
    source, given = job.checkpoint, job.options.tokenizer
    sidecars = tokenizers.read(source.sidecars)
    if job.source.binding is not None:
        sidecars = dict(job.source.binding.apart(source.config, sidecars))
    place = job.hop.converter.home.tokenizer
    if place is None:
        return sidecars, []
    prefix = f"{place[0]}/" if place[0] else ""
    if given is not None:
        sidecars = {name: data for name, data in sidecars.items() if not _is_tokenizer(name, prefix)}
        found = tokenizers.read(_tokenizer_in(given))
        if not found:
            raise UsageError(f"{given}: holds no tokenizer files")
        sidecars |= {prefix + name: data for name, data in found.items()}
    mine = {name.removeprefix(prefix): data for name, data in sidecars.items() if _is_tokenizer(name, prefix)}
    config, binding = job.assembly.legs[-1].config_a, job.hop.converter.a.binding
    ids, rows = _length(mine), get(config if binding is None else binding.home_config(config), place[1])
    if ids in (None, rows):
        return sidecars, []
    odd = f"the tokenizer has {ids} ids, the embedding {rows} rows; loaders that resize it do so without a word"
    return sidecars, [odd]


def _tokenizer_in(folder: Path) -> dict[str, Path]:
    """The files of a tokenizer in a folder, by name."""
    found = [file.name for file in sorted(folder.iterdir()) if _is_tokenizer(file.name, "") and is_sidecar(file)]
    return {name: inside(folder, name) for name in found}


def _length(files: Files) -> int | None:
    """The number of a tokenizer's ids; None where its files do not say, or are damaged: that is for readers to say."""
    try:
        found = tokenizers.ids(files)
    except InputRefused:
        return None
    return None if found is None else len(set(found.values()))


def _is_tokenizer(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and name.removeprefix(prefix).startswith(TOKENIZER)
