"""A checkpoint as it was recognised, and what a user may say to help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from mmconvert.errors import InputRefused
from mmconvert.registry import Node
from mmconvert.releases import Release
from mmconvert.sources import TensorRef
from mmconvert.spec import Config

LICENCES = ("LICENSE*", "LICENCE*", "USE_POLICY*", "Notice*", "NOTICE*")
# Files that a checkpoint needs beside weights and config; they travel byte for byte.
SIDECARS = (
    *("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("chat_template.jinja", "chat_template.json"),
    *LICENCES,
)
ASSETS = "assets"
# Any number of files may be called licences; one of more bytes is none.
LICENCE_LIMIT = 1 << 20


def is_sidecar(path: Path) -> bool:
    """Whether a file is one that travels along: by its name, and of a licence by its size too.

    Others that are too large are refused when they are read, for none of them may be missing.
    """
    known = any(fnmatchcase(path.name, pattern) for pattern in SIDECARS)
    return known and path.is_file() and (not is_licence(path.name) or path.stat().st_size <= LICENCE_LIMIT)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Around a look at what lies at `path`: what the system will not let us see or read is refused."""
    try:
        yield
    except OSError as error:
        raise InputRefused(f"{error.filename or path}: cannot be read: {error.strerror}") from error


def is_licence(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in LICENCES)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, recognised: nothing but headers and small files has been read.

    `config` is as found in `config_from` (for several parts: by part). Tensors and sidecars are named with their part's
    name and a slash in front. `original` is the config of the Hugging Face checkpoint that a CS one was made from, if
    it travelled along; `params` is a CS one's whole params document, `params_release` the oldest that
    may have spelled it, and its `config` is in the newest spelling.
    `set_aside` lists what is no tensor of the model, with the reason; a `bare` checkpoint is a params file alone.
    """

    path: Path
    node: Node
    config_from: str
    config: Config
    tensors: Mapping[str, TensorRef]
    sidecars: Mapping[str, Path]
    original: Config
    folders: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    set_aside: Mapping[str, str] = field(default_factory=dict)
    release_from: str = ""
    params: Config = field(default_factory=dict)
    params_release: Release | None = None
    bare: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold tensors, each once."""
        paths = (ref.path for ref in self.tensors.values())
        return tuple(dict.fromkeys(path for path in paths if path is not None))


@dataclass(frozen=True)
class Hints:
    """What a user says about a source that the source may not say itself."""

    config: Path | None = None
    model: str | None = None
    format: str | None = None
    release: Release | None = None
    vision_tower: Path | None = None
    encoder: int | None = None


NO_HINTS = Hints()
