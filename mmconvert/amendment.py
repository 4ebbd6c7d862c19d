"""A document of a finished folder changed, and the manifest that answers for it with it: both, or neither.

They are two files, and a process may be killed between them. So the new manifest is written first, under a name of its
own; then the document is replaced; then the new manifest takes the place of the old one. Each step is there whole or
not at all, and whoever comes next sees from the document which of the two manifests is right.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mmconvert import manifest
from mmconvert.containers.shards import inside
from mmconvert.documents import CONFIG_LIMITS, Limits, read_bytes
from mmconvert.errors import VerificationFailed
from mmconvert.staging import UNFINISHED, disk_errors, lock_of, locked, sync, write_whole

# What the name of a manifest ends with until the document has become what it says.
PENDING = ".amended"

Change = Callable[[bytes], bytes]


def amend(document: Path, change: Change) -> tuple[Path, ...]:
    """Replace a document's bytes by what `change` makes of them, and give the files that were written, if any.

    The manifest in its folder, or in the one above, follows if it lists the document. A link is replaced by a file:
    what it led to may be others' too. A change that was interrupted is finished first.

    Raises VerificationFailed, and changes nothing, where the document is not what the manifest says or the manifest is
    damaged: what is damaged must not be signed anew. Raises InputRefused for a document or manifest that is longer than
    any or no file, OutputRefused while another run is at the same document, and DiskError for every OSError.
    """
    document = document.parent.resolve() / document.name
    with disk_errors(document, 0):
        data = _content(document)
        recorded = _recorded(document)
    with disk_errors(document, len(data)):
        if recorded is None:
            return _amend_alone(document, change)
        if change(data) == data and not any(each.exists() for each in recorded.traces):
            recorded.check()
            return ()
        with locked(document):
            finished = recorded.settle()
            recorded.check()
            return tuple(dict.fromkeys([*finished, *recorded.replace(change)]))


def _amend_alone(document: Path, change: Change) -> tuple[Path, ...]:
    if change(_content(document)) == _content(document):
        return ()
    with locked(document):
        _write(document, change(_content(document)))
    return (document,)


def _content(path: Path, limits: Limits = CONFIG_LIMITS) -> bytes:
    """What a file holds. Raises InputRefused for what is no file or too long, and OSError."""
    path.stat()
    return read_bytes(path, limits.nbytes)


def _write(document: Path, data: bytes) -> None:
    write_whole(document, data, document.stat().st_mode & 0o777)


@dataclass(frozen=True)
class _Recorded:
    """A document, and the manifest that answers for it."""

    document: Path
    manifest: Path

    @property
    def pending(self) -> Path:
        return self.manifest.with_name(f"{self.manifest.name}{PENDING}")

    @property
    def unfinished(self) -> tuple[Path, ...]:
        return tuple(each.with_name(f"{each.name}{UNFINISHED}") for each in (self.document, self.pending))

    @property
    def traces(self) -> tuple[Path, ...]:
        """What a run that was killed may have left; the lock of one that still runs is among them."""
        return (*self.unfinished, self.pending, lock_of(self.document))

    def signed(self, content: bytes) -> bytes | None:
        """The manifest as it is right for a document of this content; None if it lists no such document."""
        return manifest.amended(self.manifest, self.document.relative_to(self.manifest.parent).as_posix(), content)

    def check(self) -> None:
        """Raise VerificationFailed unless the document is what the manifest says."""
        if self.signed(_content(self.document)) != _content(self.manifest, manifest.LIMITS):
            raise VerificationFailed(
                f"{self.document}: is not what was written, says the manifest; nothing was changed. "
                f"Make the folder again,\nor remove {self.manifest} if it is as you want it"
            )

    def replace(self, change: Change) -> list[Path]:
        """Change the document, and the manifest with it, or after an error neither; the files that were written."""
        data = _content(self.document)
        new = change(data)
        if new == data:
            return []
        signed = self.signed(new)
        assert signed is not None
        try:
            write_whole(self.pending, signed)
            _write(self.document, new)
            return [self.document, *self.settle()]
        except BaseException:
            with suppress(OSError):
                self.settle()
            raise

    def settle(self) -> list[Path]:
        """Bring both in order, wherever a change stopped; the manifest, if it had to follow the document."""
        for each in self.unfinished:
            each.unlink(missing_ok=True)
        if not self.pending.exists():
            return []
        if _content(self.pending, manifest.LIMITS) != self.signed(_content(self.document)):
            self.pending.unlink()
            return []
        shutil.copymode(self.manifest, self.pending)
        os.replace(self.pending, self.manifest)
        sync(self.manifest.parent)
        return [self.manifest]


def _recorded(document: Path) -> _Recorded | None:
    """A document with its manifest: of its folder, or of a checkpoint that its folder is a part of."""
    for folder in (document.parent, document.parent.parent):
        found = _Recorded(document, folder / manifest.NAME)
        if found.manifest.is_file() and inside(folder, manifest.NAME) and found.signed(b"") is not None:
            return found
    return None
