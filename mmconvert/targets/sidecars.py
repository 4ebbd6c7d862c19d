"""The files that travel beside the weights, as the home of a checkpoint has them."""

from __future__ import annotations

from pathlib import Path

from mmconvert import tokenizers
from mmconvert.containers.shards import inside
from mmconvert.converter import Format
from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts.checkpoint import is_sidecar
from mmconvert.layouts.hugging_face import snapshot
from mmconvert.paths import get
from mmconvert.targets.job import Job
from mmconvert.tokenizers import Files

TOKENIZER = ("tokenizer", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template")


def sidecars(job: Job) -> tuple[Files, list[str]]:
    """The files that travel, as the home of a checkpoint has them, and what is odd about them.

    The user's tokenizer stands in place of the source's.
    """
    source, given = job.checkpoint, job.options.tokenizer
    files = dict(tokenizers.read(source.sidecars))
    if job.source.binding is not None:
        files = dict(job.source.binding.apart(source.config, files))
    place = job.hop.converter.home.tokenizer
    if place is None:
        return files, []
    prefix = f"{place[0]}/" if place[0] else ""
    if given is not None:
        files = {name: data for name, data in files.items() if not _is_tokenizer(name, prefix)}
        found = tokenizers.read(_tokenizer_in(given))
        if not found:
            raise UsageError(f"{given}: holds no tokenizer files")
        files |= {prefix + name: data for name, data in found.items()}
    mine = {name.removeprefix(prefix): data for name, data in files.items() if _is_tokenizer(name, prefix)}
    config, binding = job.assembly.legs[-1].config_a, job.hop.converter.a.binding
    ids, rows = _length(mine), get(config if binding is None else binding.home_config(config), place[1])
    if ids in (None, rows):
        return files, []
    odd = f"the tokenizer has {ids} ids, the embedding {rows} rows; loaders that resize it do so without a word"
    return files, [odd]


def _tokenizer_in(folder: Path) -> dict[str, Path]:
    """The files of a tokenizer in a folder, which may be one of a hub's cache, by name."""
    folder = snapshot(folder)
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


def tokenizer_files(form: Format, files: Files) -> Files:
    """The files of the tokenizer's part, as the format's readers know them."""
    if form.tokenizer is None:
        return {}
    prefix = f"{form.tokenizer[0]}/" if form.tokenizer[0] else ""
    mine = {name.removeprefix(prefix): data for name, data in files.items() if _is_tokenizer(name, prefix)}
    return {prefix + name: data for name, data in form.tokenizer_files(mine).items()}


def unchanged(job: Job, files: Files) -> tuple[str, ...]:
    """The names of those files that are byte for byte what the source has, or the tokenizer that the user gave."""
    known = set(tokenizers.read(job.checkpoint.sidecars).values())
    given = job.options.tokenizer
    known |= set() if given is None else set(tokenizers.read(_tokenizer_in(given)).values())
    return tuple(name for name, data in files.items() if data in known)
