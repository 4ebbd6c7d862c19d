"""What `mmconvert` is as a library; the command line and mmsimple use nothing else.

Paths may be strings. Everything raises the exceptions of `mmconvert.errors`; nothing prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from mmconvert import manifest, planner, registry
from mmconvert.assembly import assemble
from mmconvert.compare import check_written, compare
from mmconvert.converter import Converter
from mmconvert.errors import InputRefused, NoConversion
from mmconvert.execute import execute
from mmconvert.findings import Findings
from mmconvert.layouts import NO_HINTS, Checkpoint, Hints, recognise
from mmconvert.options import DEFAULTS, Options, Verify
from mmconvert.plans import Plan
from mmconvert.progress import Progress
from mmconvert.releases import Release
from mmconvert.sources import TensorRef
from mmconvert.spec import A

__all__ = ["Findings", "Hints", "Inspection", "Options", "Plan", "convert", "inspect", "open", "plan", "verify"]

AnyPath = str | Path


def converters(model: str | None = None) -> list[Converter]:
    """Every converter, or those of one model. Raises NoConversion for a model that there is none for."""
    found = [each for each in registry.converters() if model in (None, each.model)]
    if not found:
        known = ", ".join(sorted({each.model for each in registry.converters()}))
        raise NoConversion(f"no converter for model {model!r}; known: {known}")
    return found


def plan(
    src: AnyPath,
    out: AnyPath | None,
    to: str,
    *,
    release: Release | None = None,
    options: Options = DEFAULTS,
    hints: Hints = NO_HINTS,
    overwrite: bool = False,
    reads: Sequence[str] | None = None,
) -> Plan:
    """What a conversion of `src` to format `to` (`cs`, `cs-2.4`, `hf`, `llava`) at `out` would do.

    Reads headers and small files only. Everything that can be refused without reading tensors is refused here; so is
    a source in none of the formats `reads`, where they are given. Without `out` the plan is one to look at.
    """
    return planner.make_plan(
        Path(src),
        None if out is None else Path(out),
        to,
        release=release,
        options=options,
        hints=hints,
        overwrite=overwrite,
        reads=reads,
    )


def convert(
    src: AnyPath,
    out: AnyPath,
    to: str,
    *,
    options: Options = DEFAULTS,
    hints: Hints = NO_HINTS,
    overwrite: bool = False,
    fsync: bool = True,
    digest: str = "xxh3",
    verify: Verify = "keys",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Convert `src` to format `to` at `out` and return the manifest.

    The target appears whole or not at all. `verify` reads it back before it takes its place: headers (`keys`), or
    every byte (`bytes`).
    """
    planned = plan(src, out, to, options=options, hints=hints, overwrite=overwrite)
    return run(planned, overwrite=overwrite, fsync=fsync, digest=digest, verify=verify, progress=progress)


def run(
    planned: Plan,
    *,
    overwrite: bool = False,
    fsync: bool = True,
    digest: str = "xxh3",
    verify: Verify = "keys",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Carry out a plan; see `convert`."""
    return execute(
        planned,
        overwrite=overwrite,
        fsync=fsync,
        digest=digest,
        progress=progress,
        check=lambda folder: check_written(folder, planned, verify),
    )


def verify(
    a: AnyPath,
    b: AnyPath | None = None,
    *,
    hints_a: Hints = NO_HINTS,
    hints_b: Hints = NO_HINTS,
    progress: Progress | None = None,
) -> Findings:
    """With `b`: whether it is `a`, converted, bit for bit. Without: whether the folder `a` is what its manifest says.

    Look at the result's `problems`; nothing is raised for a difference.
    """
    if b is None:
        return manifest.check_folder(Path(a), progress)
    return compare(Path(a), Path(b), hints_a, hints_b, progress)


def open(path: AnyPath, *, hints: Hints = NO_HINTS) -> Mapping[str, TensorRef]:
    """The tensors of a checkpoint by name, unread: `mmconvert.open(path)["model.norm.weight"].read()`."""
    return recognise(Path(path), hints).tensors


@dataclass(frozen=True)
class Inspection:
    """What a path holds, from headers alone."""

    path: str
    model: str
    format: str
    release: str | None
    known_by: str
    release_from: str
    parameters: int
    nbytes: int
    dtypes: Mapping[str, int]
    tensors: Mapping[str, TensorRef]
    sidecars: Sequence[str]
    set_aside: Mapping[str, str]
    notes: Sequence[str]
    problem: str | None
    converts_to: Sequence[str] = field(default_factory=list)


def inspect(path: AnyPath, *, hints: Hints = NO_HINTS) -> Inspection:
    """What a path holds: its format and how it was known, its tensors and files, and what it can be converted to.

    `problem` says what would stop a conversion; the rest is told all the same.
    """
    checkpoint = recognise(Path(path), hints)
    node = checkpoint.node
    targets = _targets(node.model, node.format)
    dtypes: Counter[str] = Counter()
    for ref in checkpoint.tensors.values():
        dtypes[ref.dtype.name] += 1
    return Inspection(
        path=str(path),
        model=node.model,
        format=node.format,
        release=str(node.release) if node.release else None,
        known_by=checkpoint.config_from,
        release_from=checkpoint.release_from,
        parameters=sum(prod(ref.shape) for ref in checkpoint.tensors.values()),
        nbytes=sum(ref.nbytes for ref in checkpoint.tensors.values()),
        dtypes=dict(sorted(dtypes.items())),
        tensors=checkpoint.tensors,
        sidecars=sorted(checkpoint.sidecars),
        set_aside=checkpoint.set_aside,
        notes=checkpoint.notes,
        problem=_problem(checkpoint),
        converts_to=targets,
    )


def _targets(model: str, source: str) -> list[str]:
    """The formats that a path leads to."""
    formats = {each.format(side).name for each, side in registry.formats() if each.model == model}
    return sorted(formats - {source})


def _problem(checkpoint: Checkpoint) -> str | None:
    """The first thing that would stop a conversion of this checkpoint to the nearest format, or None."""
    hop = next(
        registry.Hop(each, side)
        for each, side in registry.formats()
        if each.model == checkpoint.node.model and each.format(side).name == checkpoint.node.format
    )
    release = hop.converter.b_releases[-1] if hop.side == A else None
    try:
        assemble(checkpoint, (hop,), release, DEFAULTS)
    except InputRefused as error:
        return str(error)
    return None
