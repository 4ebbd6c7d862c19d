"""What a conversion that was stopped had finished, so that the next one need not do it again (`--resume`).

While a target is written, every weights file that is complete has a line in a journal beside it, with the digest of
each of its pieces. The next run keeps such a file if the journal is that of the same plan, made from source files that
nobody has touched since, and if its bytes, read again, have these digests. All else it does anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmconvert import __version__, digests
from mmconvert.casts import tallied
from mmconvert.pieces import Piece, damaged, frame_digest, pieces_of
from mmconvert.plans import OutputFile, Plan
from mmconvert.progress import Progress
from mmconvert.staging import sync

NAME = ".mmconvert-finished"


@dataclass(frozen=True)
class Finished:
    """A weights file that is complete: the digests of its tensors, and what was counted in them by kind and key."""

    digests: Mapping[str, str]
    counts: Mapping[str, Mapping[str, int]]


class Journal:
    """The journal in a staging folder, of a run that carries out `plan`. Every method raises OSError."""

    def __init__(self, folder: Path, plan: Plan, digest: str) -> None:
        self._path = folder / NAME
        self._plan = plan
        self._digest = digest

    def begin(self) -> None:
        """Begin one anew."""
        self._path.write_text(self._identity())

    def take_up(self, watcher: Progress, *, fsync: bool) -> dict[str, Finished]:
        """What a run before has finished, by file; everything else in the folder is removed."""
        _remove_links(self._path.parent)
        found = self._recorded()
        kept = {
            output.layout.name: found[output.layout.name]
            for output in self._plan.outputs
            if output.layout.name in found and self._is_intact(output, found[output.layout.name], watcher)
        }
        _keep(self._path.parent, {self._path.parent / name for name in (*kept, *([NAME] if kept else []))})
        if fsync:
            # The run before may not have waited for the disk.
            for name in kept:
                sync(self._path.parent / name)
        if not kept:
            self.begin()
        return kept

    def add(self, output: OutputFile, found: Mapping[str, str]) -> None:
        """Note that a file is complete, with the digests of its tensors; from any thread."""
        if output.layout.seal is None:  # a sealed file has another frame than the one that it was laid out with
            said = json.dumps({"file": output.layout.name, "digests": found, "counts": self._counts(output)}).encode()
            with self._path.open("ab", buffering=0) as file:
                # On a line of its own, whatever a run that was killed may have left of one.
                file.write(b"\n%s %s" % (_check(said), said))

    def remove(self) -> None:
        """End it: the target is complete."""
        self._path.unlink()

    def _identity(self) -> str:
        """A digest of all that the bytes of the weights files follow from."""
        plan = self._plan
        said = {
            "version": __version__,
            "digest": self._digest,
            "facts": plan.facts,
            "files": [[str(path.resolve()), *stamp] for path, stamp in plan.files.items()],
            "outputs": [
                [
                    output.layout.name,
                    output.layout.size,
                    frame_digest(output.layout, "sha256"),
                    [
                        [each.key, output.layout.slots[each.key].offset, each.nbytes, each.origin, each.rule]
                        for each in output.tensors
                    ],
                ]
                for output in plan.outputs
            ],
        }
        return digests.of("sha256", json.dumps(said, sort_keys=True).encode())

    def _recorded(self) -> dict[str, Finished]:
        """What the journal says, if it is one of the same plan."""
        if not self._path.is_file():
            return {}
        identity, *lines = self._path.read_bytes().split(b"\n")
        if identity != self._identity().encode():
            return {}
        found = {}
        for line in lines:
            check, _, text = line.partition(b" ")
            if check == _check(text):
                said = json.loads(text)
                found[said["file"]] = Finished(said["digests"], said["counts"])
        return found

    def _is_intact(self, output: OutputFile, finished: Finished, watcher: Progress) -> bool:
        """Whether a file holds what was written to it, to the last bit."""
        layout, path = output.layout, self._path.parent / output.layout.name
        if not path.is_file() or path.stat().st_size != layout.size:
            return False
        slots = layout.slots.items()
        tensors = [Piece(key, ((slot.offset, slot.nbytes),), finished.digests[key]) for key, slot in slots]
        pieces = pieces_of(tensors, layout.size, frame_digest(layout, self._digest))
        return not any(damaged(path, pieces, self._digest, watcher))

    def _counts(self, output: OutputFile) -> dict[str, dict[str, int]]:
        """What was counted in the tensors of a file."""
        found: dict[str, dict[str, int]] = {}
        for tensor in output.tensors:
            for tally, key in tallied(tensor.source):
                for kind in (kind for kind, each in self._plan.tallies.items() if each is tally):
                    found.setdefault(kind, {})[key] = tally.counts.get(key, 0)
        return found


def _check(text: bytes) -> bytes:
    """What a line begins with, so that one that was cut off or damaged is known."""
    return digests.of("xxh3", text).encode()


def _keep(folder: Path, kept: set[Path]) -> None:
    """Remove all files below a folder but a few, and the folders that are empty then."""
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files:
            if Path(parent, name) not in kept:
                Path(parent, name).unlink()
        for name in folders:
            if not any(Path(parent, name).iterdir()):
                Path(parent, name).rmdir()


def _remove_links(folder: Path) -> None:
    """Remove all links below a folder: no run of ours leaves one, and what they lead to is not ours."""
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if path.is_symlink():
                path.unlink()
