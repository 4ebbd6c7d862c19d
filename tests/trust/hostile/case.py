"""What a hostile input is: how it is made, which command meets it, and how that must end."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONVERT = "hf-to-cs --src {source} --out {out}"
CONVERT_CS = "cs-to-hf --src {source} --out {out}"


@dataclass(frozen=True)
class Place:
    """A folder of one test: `source` is what is hostile, `foreign` holds what nobody may open or import.

    The target would be `out`, alone in its folder. `bases` are sound checkpoints by name, not to be changed. What is
    put into `held` stays open until the command has ended.
    """

    root: Path
    bases: Mapping[str, Path]
    held: list[Any] = field(default_factory=list)

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def foreign(self) -> Path:
        return self.root / "foreign"

    @property
    def notes(self) -> Path:
        return self.root / "notes"

    @property
    def out(self) -> Path:
        return self.root / "target" / "out"

    def copy(self, base: str) -> Path:
        """The source: a copy of a sound checkpoint."""
        shutil.copytree(self.bases[base], self.source, symlinks=True)
        return self.source

    def rewrite_config(self, folder: Path | None = None, **changes: Any) -> None:
        file = (folder or self.source) / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@dataclass(frozen=True)
class Case:
    """`build` makes the source at its place; the command is then to end with `code` and a message that has `words`.

    With code 0 it is a control: what looks hostile and is not. No file may grow beyond `file_size` bytes, if that is
    not 0; `needs` says without what the case cannot be tried.
    """

    build: Callable[[Place], object]
    words: Sequence[str]
    command: str = CONVERT
    code: int = 3
    file_size: int = 0
    needs: str = ""
    program: str = "mmconvert"


Cases = dict[str, Case]


def stamped(folder: Path) -> dict[str, tuple[int, ...]]:
    """What every file and folder below one is, so that a change of any of them is seen.

    Of folders that is what they hold: one in which something stood for a while is what it was.
    """
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        times = () if os.path.isdir(path) else (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        found[str(path)] = (status.st_mode, status.st_ino, *times)
    return found
