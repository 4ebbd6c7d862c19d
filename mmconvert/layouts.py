"""What is this path? The format of a checkpoint, its configs, where its tensors lie, and the files that travel with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mmconvert import registry
from mmconvert.configs import get
from mmconvert.containers import open_file, open_folder, weight_files
from mmconvert.converter import Converter, Format
from mmconvert.documents import read_json, read_yaml
from mmconvert.errors import InputRefused, UsageError
from mmconvert.registry import Node
from mmconvert.releases import Release
from mmconvert.sources import TensorRef
from mmconvert.spec import B, Config

# Files that a checkpoint needs beside weights and config; they travel byte for byte.
SIDECARS = (
    *("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("chat_template.jinja", "chat_template.json", "LICENSE*", "USE_POLICY*", "Notice*", "NOTICE*"),
)
ASSETS = "assets"
# Larger files are no sidecars, whatever they are called.
SIDECAR_LIMIT = 64 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, recognised: nothing but headers and small files has been read.

    `config` is as found (for several parts: by part). Tensors and sidecars are named with their part's name and a
    slash in front. `original` is the config of the Hugging Face checkpoint that a CS one was made from, if it
    travelled along.
    """

    path: Path
    node: Node
    known_by: str
    config: Config
    tensors: Mapping[str, TensorRef]
    sidecars: Mapping[str, Path]
    original: Config
    folders: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    set_aside: Mapping[str, str] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold tensors, each once."""
        paths = (getattr(ref.source, "path", None) for ref in self.tensors.values())
        return tuple(dict.fromkeys(path for path in paths if path is not None))


@dataclass(frozen=True)
class Hints:
    """What a user says about a source that the source may not say itself."""

    config: Path | None = None
    model: str | None = None
    format: str | None = None
    release: Release | None = None
    vision_tower: Path | None = None


def recognise(path: Path, hints: Hints = Hints()) -> Checkpoint:
    """Find out what lies at a path: a folder, a file, or a hub cache folder.

    Raises UsageError if there is nothing, InputRefused if it is nothing that can be converted, with the reason.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    path = _snapshot(path)
    if path.is_file():
        return _recognise_cs(path, hints) if _is_cs_file(path, hints) else _single_folder(path.parent, hints, weights=path)
    if (path / "config.json").is_file():
        return _single_folder(path, hints)
    if weight_files(path) or any(path.glob("*.mdl")):
        return _recognise_cs(path, hints)
    _refuse_adapters(path)
    return _several_folders(path, hints)


def _snapshot(path: Path) -> Path:
    """The newest snapshot of a hub cache folder (`models--org--name`); other paths as they are."""
    snapshots = path / "snapshots"
    if not snapshots.is_dir():
        return path
    reference = path / "refs" / "main"
    if reference.is_file():
        named = snapshots / reference.read_text("utf-8").strip()
        if named.parent == snapshots and named.is_dir():
            return named
    found = [each for each in snapshots.iterdir() if each.is_dir()]
    if len(found) != 1:
        raise UsageError(f"{path}: holds {len(found)} snapshots and no refs/main; name one of {snapshots}")
    return found[0]


def _refuse_adapters(folder: Path) -> None:
    """Folders that hold a part of a model and name it: say what they are and what to do."""
    if (folder / "adapter_config.json").is_file():
        raise InputRefused(f"{folder}: a LoRA adapter; merge it into its base model first, then convert the result")
    if (folder / "mm_projector.bin").is_file() and not weight_files(folder):
        raise InputRefused(
            f"{folder}: only a projector (mm_projector.bin); put it together with its language model in LLaVA first"
        )


# --- Hugging Face and LLaVA folders ---------------------------------------------------------------------------------


def _candidates(hints: Hints, several: bool) -> Iterable[tuple[Converter, Format]]:
    """Formats that a source may be in, side by side with their converter; the user's hints narrow them."""
    for converter, side in registry.formats():
        form = converter.format(side)
        if side == B or (len(form.parts) > 1) != several:
            continue
        if hints.model in (None, converter.model) and hints.format in (None, form.name):
            yield converter, form


def _single_folder(folder: Path, hints: Hints, weights: Path | None = None) -> Checkpoint:
    """A folder with a `config.json`: one model, or the text part of one whose other part lies elsewhere."""
    _refuse_adapters(folder)
    config = _config(folder)
    for converter, form in _candidates(hints, several=False):
        if form.parts[""](config):
            return _checkpoint(folder, Node(converter.model, form.name), "config.json", form, {"": folder}, weights)
    for converter, form in _candidates(hints, several=True):
        if not form.links:
            continue
        held = {part for part, known in form.parts.items() if known(config)}
        wanted = {part for part in form.links.values() if part not in held}
        if held and wanted | held == set(form.parts):
            parts = {part: folder for part in held}
            parts |= {part: _linked_folder(folder, config, form, part, hints.vision_tower) for part in wanted}
            return _checkpoint(folder, Node(converter.model, form.name), "config.json", form, parts, weights)
    kind = config.get("model_type") or config.get("architectures") or "nothing"
    raise InputRefused(f"{folder / 'config.json'}: model_type {kind!r} is none that is known here (see `mmconvert list`)")


def _linked_folder(folder: Path, config: Config, form: Format, part: str, given: Path | None) -> Path:
    """The folder of a part that a config field points to: as given, as it says, or beside the folder."""
    field = next(path for path, target in form.links.items() if target == part)
    value = get(config, field.partition(".")[2])
    if given is not None:
        candidates = [given]
    elif isinstance(value, str) and value:
        named = Path(value)
        candidates = [named] if named.is_absolute() else [folder / named, folder.parent / named]
        candidates += [folder.parent / named.name, folder.parent / part]
    else:
        candidates = [folder.parent / part]
    for candidate in candidates:
        if (_snapshot(candidate) / "config.json").is_file():
            return _snapshot(candidate)
    raise InputRefused(
        f"{folder}: its vision tower ({field.partition('.')[2]} {value!r}) is not found; name its folder with --vision-tower"
    )


def _several_folders(path: Path, hints: Hints) -> Checkpoint:
    """A folder of folders: each is known by its config, whatever it is called."""
    inside = [_snapshot(each) for each in sorted(path.iterdir()) if each.is_dir()] if path.is_dir() else []
    configs = {each: _config(each) for each in inside if (each / "config.json").is_file()}
    near_misses = []
    for converter, form in _candidates(hints, several=True):
        found = {part: [each for each in configs if known(configs[each])] for part, known in form.parts.items()}
        if hints.vision_tower is not None:
            found |= {part: [hints.vision_tower] for part in form.links.values() or ("image_model",) if part in found}
        if all(len(each) == 1 for each in found.values()):
            parts = {part: each[0] for part, each in found.items()}
            return _checkpoint(path, Node(converter.model, form.name), "the configs of its folders", form, parts)
        if any(found.values()):
            near_misses += [
                f"{len(each)} folders for {part}" + (f" ({', '.join(e.name for e in each)})" if each else "")
                for part, each in found.items()
                if len(each) != 1
            ]
    if near_misses:
        raise InputRefused(f"{path}: needs one folder of each part, but has {near_misses[0]}")
    raise InputRefused(f"{path}: no checkpoint is recognised here: no config.json, no .mdl, no folders that hold them")


def _config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise InputRefused(f"{folder / 'config.json'}: holds no mapping")
    return config


def _checkpoint(
    path: Path, node: Node, known_by: str, form: Format, parts: Mapping[str, Path], weights: Path | None = None
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
    whole = configs[""] if "" in configs else configs
    folders = tuple(dict.fromkeys((path, *parts.values())))
    return Checkpoint(path, node, known_by, whole, tensors, sidecars, whole, folders, tuple(notes))


def _with_companion(folder: Path, form: Format, part: str, notes: list[str]) -> tuple[dict[str, Any], list[Path]]:
    """A part's config, with what a second file beside it adds; the two are checked against each other."""
    config = _config(folder)
    if part not in form.companions:
        return config, []
    name, may_differ = form.companions[part]
    file = folder / name
    if not file.is_file():
        return config, []
    other = read_json(file)
    if not isinstance(other, dict):
        raise InputRefused(f"{file}: holds no mapping")
    shared = [path for path in other if path in config and other[path] != config[path]]
    architecture = {"architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path"}
    for path in shared:
        if path.endswith("_token_id") or path in architecture or path in ("use_cache", "pretraining_tp", "max_length"):
            continue
        if path not in may_differ:
            raise InputRefused(
                f"{folder / 'config.json'}: {path} is {config[path]!r}, but {name} beside it says {other[path]!r}; "
                "which one describes the weights?"
            )
        notes.append(f"{path}: {config[path]!r} of config.json is used, not {other[path]!r} of {name}")
    filled = {path: value for path, value in other.items() if path not in config and path not in architecture}
    return {**config, **filled}, [file]


def _sidecars(folder: Path) -> dict[str, Path]:
    return {
        each.name: each
        for each in sorted(folder.iterdir())
        if any(fnmatchcase(each.name, pattern) for pattern in SIDECARS)
        and each.is_file()
        and each.stat().st_size <= SIDECAR_LIMIT
    }


# --- CS files and folders -------------------------------------------------------------------------------------------


def _is_cs_file(path: Path, hints: Hints) -> bool:
    if path.suffix == ".mdl" or (hints.config is not None and hints.config.suffix in (".yaml", ".yml")):
        return True
    return not (path.parent / "config.json").is_file()


def _recognise_cs(path: Path, hints: Hints) -> Checkpoint:
    folder = path if path.is_dir() else path.parent
    file = path if path.is_file() else _only_mdl(path)
    metadata: tuple[dict[str, Any], ...] = ()
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
            assets = _assets(folder)
            original = _original(assets, converter)
            known_by = f"{params_from}" + (f", release from {release_from}" if release else "")
            node = Node(converter.model, form.name, release)
            notes = (warning,) if warning else ()
            return Checkpoint(path, node, known_by, section, tensors, assets, original, (path,), notes, set_aside)
    raise InputRefused(f"{params_from}: model name {section.get('name')!r} is none that is known here (see `mmconvert list`)")


def _only_mdl(folder: Path) -> Path | None:
    found = sorted(folder.glob("*.mdl"))
    if len(found) > 1 and folder / "model.mdl" not in found:
        raise UsageError(f"{folder}: holds {len(found)} .mdl files; name one, such as {found[-1]}")
    return folder / "model.mdl" if folder / "model.mdl" in found else next(iter(found), None)


def _params(
    path: Path, folder: Path, given: Path | None, metadata: tuple[dict[str, Any], ...]
) -> tuple[Any, str]:
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
    version = metadata[-1].get("version") if metadata else None
    try:
        return (Release.parse(version), "the checkpoint's metadata") if isinstance(version, str) else (None, "")
    except ValueError:
        return None, ""


def _assets(folder: Path) -> dict[str, Path]:
    root = folder / ASSETS
    if not root.is_dir():
        return {}
    files = (each for each in sorted(root.rglob("*")) if each.is_file() and each.stat().st_size <= SIDECAR_LIMIT)
    return {each.relative_to(root).as_posix(): each for each in files}


def _original(assets: Mapping[str, Path], converter: Converter) -> Config:
    """The config that the checkpoint was made from, as it travelled in `assets/`; empty where none did."""
    parts = converter.a.parts
    found = {part: assets[name] for part in parts if (name := f"{part}/config.json" if part else "config.json") in assets}
    documents = {part: read_json(file) for part, file in found.items()}
    documents = {part: document for part, document in documents.items() if isinstance(document, dict)}
    if "" in parts:
        return documents.get("", {})
    return documents if len(documents) == len(parts) else {}


