"""`mmconvert.json`: what a conversion did, tensor by tensor, and the digest of every byte that it wrote.

Sizes and offsets are recorded, so a folder is checked without knowing the containers in it: each weights file is its
tensors and its frame, which is all the bytes that lie in no tensor. The manifest has no time and no absolute path in
it, and it digests itself: one flipped bit anywhere in the folder is found.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmconvert import __version__, digests
from mmconvert.containers.shards import MAX_TENSORS
from mmconvert.documents import Limits, parse_json, read_bytes
from mmconvert.errors import InputRefused, UsageError, VerificationFailed
from mmconvert.excerpt import printable
from mmconvert.findings import Findings
from mmconvert.pieces import Piece, damaged, frame_digest, pieces_of
from mmconvert.plans import Plan
from mmconvert.progress import Progress, Silent
from mmconvert.remark import Remark

NAME = "mmconvert.json"
SCHEMA = 1
# What lists as many tensors as are read at most, each in some fourteen values and three hundred bytes.
LIMITS = Limits(512 * MAX_TENSORS, 16 * MAX_TENSORS, 10 * MAX_TENSORS)
# What trying to make sense of a manifest raises if it is not one that we wrote.
_SENSELESS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True)
class _Expected:
    """What a manifest says about its folder: the size of each file, and the pieces that it consists of."""

    digest: str
    sizes: Mapping[str, int]
    pieces: Mapping[str, list[Piece]]
    tensors: int


def build(
    plan: Plan, results: Mapping[tuple[str, str], str], digest: str, counted: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """The manifest of a finished `plan`.

    `results` holds the digest of each tensor by (file, key), `counted` what was counted on the way, by kind and key.
    """
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "tool": {"name": "mmconvert", "version": __version__},
        **plan.facts,
        "digest": digest,
        "tensors": [
            {
                "key": tensor.key,
                "file": output.layout.name,
                "offset": output.layout.slots[tensor.key].offset,
                "bytes": tensor.nbytes,
                "dtype": tensor.dtype.name,
                "shape": list(tensor.shape),
                "source": tensor.origin,
                "rule": tensor.rule,
                "digest": results[output.layout.name, tensor.key],
            }
            for output in plan.outputs
            for tensor in output.tensors
        ],
        "files": {
            output.layout.name: {"bytes": output.layout.size, "frame": frame_digest(output.layout, digest)}
            for output in plan.outputs
        },
        "documents": {name: _entry(data, digest) for name, data in plan.documents.items()},
        "dropped": _remarks(plan.dropped),
        "invented": _remarks(plan.invented),
        "carried": list(plan.carried),
        "warnings": list(plan.warnings),
        **{name: counts for name, counts in sorted(counted.items()) if counts},
    }
    return _signed(document)


def amended(path: Path, name: str, content: bytes) -> bytes | None:
    """What the manifest at `path` would be if the document `name` held `content`; None if it lists no such document.

    That is the manifest as it stands if it says just that. Raises VerificationFailed for a manifest that is damaged,
    UsageError for one of a later version, InputRefused for one that is longer than any.
    """
    try:
        document = _read(read_bytes(path, LIMITS.nbytes))
        if name not in document["documents"]:
            return None
        document["documents"][name] = _entry(content, document["digest"])
        return render(_signed(document))
    except _SENSELESS as error:
        raise VerificationFailed(f"{path}: is damaged: {error}") from error


def render(document: Mapping[str, Any]) -> bytes:
    """The one way in which a manifest is written down."""
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def check_folder(folder: Path, progress: Progress | None = None) -> Findings:
    """Compare every byte of `folder` with the manifest in it.

    A folder that differs, or a manifest that cannot be made sense of, is a report with problems, not an exception.
    Raises `UsageError` if there is no manifest, or one without digests, so that there is nothing to compare with.
    """
    path = folder / NAME
    if not os.path.lexists(path):
        raise UsageError(f"{folder}: has no {NAME}; `mmconvert verify A B` compares it with its source")
    try:
        expected = _understand(read_bytes(path, LIMITS.nbytes))
    except InputRefused as error:
        return Findings([printable(str(error))])
    except _SENSELESS as error:
        return Findings([f"{NAME}: is damaged: {printable(str(error))}"])
    if expected.digest == "none":
        raise UsageError(f"{folder}: was written without digests; `mmconvert verify A B` compares it with its source")

    sizes, problems = _files_below(folder)
    sizes.pop(NAME, None)
    problems += [f"{name}: is not in the manifest" for name in sizes.keys() - expected.sizes.keys()]
    problems += [f"{name}: is missing" for name in expected.sizes.keys() - sizes.keys()]
    # Only files that the walk has found are opened, so no name in a manifest leads out of the folder.
    whole = [name for name in expected.sizes if sizes.get(name) == expected.sizes[name]]
    problems += [
        f"{name}: has {sizes[name]} bytes instead of {expected.sizes[name]}"
        for name in expected.sizes.keys() & sizes.keys() - set(whole)
    ]
    watcher = progress or Silent()
    watcher.start(sum(expected.sizes[name] for name in whole))
    try:
        for name in whole:
            found = damaged(folder / name, expected.pieces[name], expected.digest, watcher)
            problems += [f"{name}: {problem}" for problem in found]
    finally:
        watcher.finish()
    return Findings(sorted(map(printable, problems)), tensors=expected.tensors, nbytes=sum(expected.sizes.values()))


def _signed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with its own digest, which comes last."""
    return {**document, "self": digests.of(document["digest"], render(document))}


def _entry(content: bytes, digest: str) -> dict[str, Any]:
    return {"bytes": len(content), "digest": digests.of(digest, content)}


def _read(data: bytes) -> dict[str, Any]:
    """A manifest without its own digest, which has been checked; raises some of `_SENSELESS` where that fails."""
    try:
        document: dict[str, Any] = parse_json(data, "its text", limits=LIMITS)
    except InputRefused as error:
        raise ValueError(str(error)) from error
    # Rendered again it must be the same, or white space and the spelling of numbers could change unnoticed.
    if render(document) != data:
        raise ValueError("it was changed after it was written")
    digest = document["digest"]
    if digest not in digests.NAMES:
        raise ValueError(f"no digest is called {digest!r}")
    if document.pop("self") != digests.of(digest, render(document)):
        raise ValueError("it does not match its own digest")
    if document["schema"] != SCHEMA:
        raise UsageError(f"{NAME}: has schema {document['schema']}, and this version reads {SCHEMA}; upgrade mmconvert")
    return document


def _understand(data: bytes) -> _Expected:
    """What the manifest `data` says; raises some of `_SENSELESS` if it is not one that we wrote."""
    document = _read(data)
    digest, files, documents = document["digest"], document["files"], document["documents"]
    if twice := files.keys() & documents.keys():
        raise ValueError(f"{min(twice)!r} is a document and holds tensors")
    sizes = {name: _count(entry["bytes"]) for name, entry in {**files, **documents}.items()}
    pieces = {name: [Piece("document", ((0, sizes[name]),), entry["digest"])] for name, entry in documents.items()}
    tensors: dict[str, list[Piece]] = {name: [] for name in files}
    for entry in document["tensors"]:
        offset, length = _count(entry["offset"]), _count(entry["bytes"])
        if offset + length > sizes[entry["file"]]:
            raise ValueError(f"tensor {entry['key']!r} ends behind its file")
        tensors[entry["file"]].append(Piece(entry["key"], ((offset, length),), entry["digest"]))
    for each in tensors.values():
        _check_apart(each)
    pieces |= {name: pieces_of(tensors[name], sizes[name], entry["frame"]) for name, entry in files.items()}
    return _Expected(digest, sizes, pieces, len(document["tensors"]))


def _check_apart(tensors: Iterable[Piece]) -> None:
    """Raise ValueError where two tensors share bytes: those would be read for each of them, over and over."""
    end, last = 0, ""
    for (offset, length), name in sorted((each.spans[0], each.name) for each in tensors if each.spans[0][1]):
        if offset < end:
            raise ValueError(f"tensors {last!r} and {name!r} lie upon each other")
        end, last = offset + length, name


def _count(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no number of bytes")
    return value


def _files_below(folder: Path) -> tuple[dict[str, int], list[str]]:
    """The size of every regular file below `folder`, by its path with `/`, and a problem for anything else."""
    sizes: dict[str, int] = {}
    problems: list[str] = []

    def unseen(error: OSError) -> None:
        problems.append(f"{Path(error.filename).relative_to(folder).as_posix()}: cannot be read: {error.strerror}")

    for parent, folders, files in os.walk(folder, onerror=unseen):
        for name in (*folders, *files):
            path = Path(parent, name)
            try:
                status = path.lstat()
            except OSError as error:
                unseen(error)
                continue
            relative = path.relative_to(folder).as_posix()
            if stat.S_ISREG(status.st_mode):
                sizes[relative] = status.st_size
            elif not stat.S_ISDIR(status.st_mode):
                problems.append(f"{relative}: is a link or a device, not a file")
    return sizes, problems


def _remarks(remarks: Iterable[Remark]) -> list[dict[str, str]]:
    return [{"subject": remark.subject, "why": remark.why} for remark in remarks]
