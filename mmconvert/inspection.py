"""What a path holds, from headers alone, and what can be done with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from mmconvert import mapping, registry
from mmconvert.assembly import assemble
from mmconvert.errors import InputRefused, NoConversion
from mmconvert.layouts import NO_HINTS, Checkpoint, Hints, recognise
from mmconvert.options import DEFAULTS
from mmconvert.progress import Progress
from mmconvert.scan import Scan, scan_tensors
from mmconvert.sources import TensorRef
from mmconvert.spec import A, B


@dataclass(frozen=True)
class Inspection:
    """What a path holds, from headers alone; `scan` is what its data holds, where that was asked for."""

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
    refused: Mapping[str, str] = field(default_factory=dict)
    scan: Scan | None = None


def look_at(path: Path, hints: Hints = NO_HINTS, scan: bool = False, progress: Progress | None = None) -> Inspection:
    """Recognise what lies at a path and say what there is; with `scan`, count the values that are not finite."""
    checkpoint = recognise(path, hints)
    node = checkpoint.node
    refused = _refused(checkpoint)
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
        parameters=_parameters(checkpoint),
        nbytes=sum(ref.nbytes for ref in checkpoint.tensors.values()),
        dtypes=dict(sorted(dtypes.items())),
        tensors=checkpoint.tensors,
        sidecars=sorted(checkpoint.sidecars),
        set_aside=checkpoint.set_aside,
        notes=checkpoint.notes,
        problem=next(filter(None, refused.values()), None),
        converts_to=[target for target, why in refused.items() if why is None],
        refused={target: why for target, why in refused.items() if why is not None},
        scan=scan_tensors(checkpoint.tensors, progress) if scan else None,
    )


def _parameters(checkpoint: Checkpoint) -> int:
    """The number of parameters; second copies that the model's tables know of are not counted again."""
    node = checkpoint.node
    try:
        hops = registry.path(node.model, node.format, node.format)
        legs = mapping.translate(hops, checkpoint.config, frozenset(checkpoint.tensors), checkpoint.config_from)
        copies = {twin.key for twin in legs[0].twins_read()}
    except (InputRefused, NoConversion):
        copies = set()
    return sum(prod(ref.shape) for key, ref in checkpoint.tensors.items() if key.removeprefix("model.") not in copies)


def _refused(checkpoint: Checkpoint) -> dict[str, str | None]:
    """The formats that a path leads to, and for each what would stop the conversion, or None."""
    node = checkpoint.node
    edges = [each for each in registry.edges() if each.model == node.model]
    formats = {each.format(side).name for each in edges for side in (A, B)}
    # A format leads to itself by way of its releases.
    if not any(each.a is each.b for each in edges if each.a.name == node.format):
        formats.discard(node.format)
    return {target: _obstacle(checkpoint, target) for target in sorted(formats)}


def _obstacle(checkpoint: Checkpoint, target: str) -> str | None:
    try:
        assemble(checkpoint, registry.path(checkpoint.node.model, checkpoint.node.format, target), DEFAULTS)
    except InputRefused as error:
        return str(error)
    return None
