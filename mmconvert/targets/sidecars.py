"""The files that travel beside the weights, as the home of a checkpoint has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmconvert import tokenizers
from mmconvert.containers.shards import inside
from mmconvert.converter import Format
from mmconvert.documents import file_size
from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts.checkpoint import is_sidecar
from mmconvert.layouts.hugging_face import snapshot
from mmconvert.paths import get
from mmconvert.targets.job import Job
from mmconvert.tokenizers import Files

TOKENIZER = ("tokenizer", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template")
# All of them are held at once. The largest tokenizer has some 40 MB in its files, and few models have two.
TOTAL_LIMIT = 128 << 20


@dataclass(frozen=True)
class Sidecars:
    """The files that travel, as the home of a checkpoint has them, and what is odd about them.

    `originals` are the bytes of all files that were read for them.
    """

    files: Files
    originals: frozenset[bytes]
    warnings: tuple[str, ...] = ()

    def unchanged(self, files: Files) -> tuple[str, ...]:
        """The names of those files that are byte for byte what the source has, or the tokenizer that the user gave."""
        return tuple(name for name, data in files.items() if data in self.originals)


def sidecars(job: Job) -> Sidecars:
    """The files that travel; the user's tokenizer stands in place of the source's."""
    source, given = job.checkpoint, job.options.tokenizer
    _check_sizes(source.path, source.sidecars)
    files = tokenizers.read(source.sidecars)
    originals = frozenset(files.values())
    if job.source.binding is not None:
        files = dict(job.source.binding.apart(source.config, files))
    place = job.hop.converter.home.tokenizer
    if place is None:
        return Sidecars(files, originals)
    if given is not None:
        theirs = _tokenizer_in(given)
        _check_sizes(given, theirs)
        found = tokenizers.read(theirs)
        if not found:
            raise UsageError(f"{given}: holds no tokenizer files")
        prefix, originals = _prefix(place[0]), originals | frozenset(found.values())
        files = {name: data for name, data in files.items() if not _is_tokenizer(name, prefix)}
        files |= {prefix + name: data for name, data in found.items()}
    config, binding = job.assembly.legs[-1].config_a, job.hop.converter.a.binding
    ids = _length(_tokenizer_of(place[0], files))
    rows = get(config if binding is None else binding.home_config(config), place[1])
    if ids in (None, rows):
        return Sidecars(files, originals)
    odd = f"the tokenizer has {ids} ids, the embedding {rows} rows; loaders that resize it do so without a word"
    return Sidecars(files, originals, (odd,))


def _check_sizes(path: Path, files: Mapping[str, Path]) -> None:
    """Raise InputRefused where the files take more than may be held at once, before any is read."""
    total = 0
    for name, file in files.items():
        total += file_size(file)
        if total > TOTAL_LIMIT:
            raise InputRefused(
                f"{path}: the files beside the weights, {name} among them, have more than {TOTAL_LIMIT >> 20} MiB; "
                "remove those that are no part of the model"
            )


def tokenizer_files(form: Format, files: Files) -> Files:
    """The files of the tokenizer's part, as the format's readers know them."""
    if form.tokenizer is None:
        return {}
    part = form.tokenizer[0]
    return {_prefix(part) + name: data for name, data in form.tokenizer_files(_tokenizer_of(part, files)).items()}


def _tokenizer_of(part: str, files: Files) -> Files:
    """The files of the tokenizer of a part, by their names within it."""
    prefix = _prefix(part)
    return {name.removeprefix(prefix): data for name, data in files.items() if _is_tokenizer(name, prefix)}


def _prefix(part: str) -> str:
    return f"{part}/" if part else ""


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
