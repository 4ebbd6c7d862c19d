"""One tensor's journey: where it comes from, each step on its way, and its first rows before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import prod

from mmconvert.casts import CASTABLE, widened
from mmconvert.dtypes import DType
from mmconvert.errors import UsageError
from mmconvert.plans import OutputFile, Plan, PlannedTensor, Step
from mmconvert.sources import Source

# Enough to see the order of the rows of a head, and to recognise a row.
ROWS, COLUMNS = 8, 4


@dataclass(frozen=True)
class Explanation:
    """What becomes of one tensor.

    `source` is None for a tensor that is made, `target` for one that is dropped; `note` then says why. `rows` are the
    source's rows that the target's first ones are, `also` what else the target makes of the same tensor; `before` and
    `after` are the first values of the first rows of the source and of the target. A tensor of one dimension has rows
    of one value.
    """

    source: str | None
    source_file: str
    target: str | None
    target_file: str
    shape: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ()
    rule: str = ""
    steps: tuple[Step, ...] = ()
    rows: tuple[int, ...] = ()
    before: tuple[tuple[float, ...], ...] = ()
    after: tuple[tuple[float, ...], ...] = ()
    also: tuple[str, ...] = ()
    note: str = ""


def explain(plan: Plan, key: str) -> Explanation:
    """The journey of the tensor that the target or the source calls `key`. Raises UsageError if neither has it.

    A tensor of a target of several folders may be named without its folder, where that leaves no doubt.
    """
    planned = [(output, tensor) for output in plan.outputs for tensor in output.tensors]
    for spelled in (OutputFile.name_of, lambda _, tensor: tensor.key, lambda _, tensor: tensor.origin):
        found = [(output, tensor) for output, tensor in planned if spelled(output, tensor) == key]
        one_source = len({tensor.origin for _, tensor in found}) == 1
        if found and (len(found) == 1 or one_source):
            output, tensor = found[0]
            others = [
                each.name_of(other)
                for each, other in planned
                if other.origin == tensor.origin is not None and other is not tensor
            ]
            return replace(_explained(output, tensor, output.name_of(tensor)), also=tuple(others))
    for dropped in plan.dropped:
        if dropped.subject == key:
            return Explanation(key, "", None, "", note=dropped.why)
    known = {name for output, tensor in planned for name in (output.name_of(tensor), tensor.origin or "")}
    near = get_close_matches(key, known | {each.subject for each in plan.dropped}, n=3, cutoff=0.3)
    raise UsageError(f"--key {key}: no tensor of this name" + (f"; near it are {', '.join(near)}" if near else ""))


def _explained(output: OutputFile, tensor: PlannedTensor, name: str) -> Explanation:
    journey = tensor.journey
    if journey is None:
        after = _first_rows(tensor.source, tensor.shape, tensor.dtype)
        return Explanation(
            source=None,
            source_file="",
            target=name,
            target_file=output.layout.name,
            shape=tensor.shape,
            dtypes=(tensor.dtype.name,),
            rule=tensor.rule,
            note=f"made: {tensor.rule}; its first row begins {after[0] if after else ()}",
        )
    ref = journey.ref
    count = min(ROWS, tensor.shape[0]) if tensor.shape else 0
    return Explanation(
        source=ref.key,
        source_file=ref.file,
        target=name,
        target_file=output.layout.name,
        shape=tensor.shape,
        dtypes=(ref.dtype.name, tensor.dtype.name),
        rule=tensor.rule,
        steps=journey.steps,
        rows=tuple(range(count) if journey.index is None else journey.index[:count]),
        before=_first_rows(ref.source, ref.shape, ref.dtype),
        after=_first_rows(tensor.source, tensor.shape, tensor.dtype),
    )


def _first_rows(source: Source, shape: Sequence[int], dtype: DType) -> tuple[tuple[float, ...], ...]:
    """The first values of the first rows of a tensor."""
    if not shape or dtype not in CASTABLE or 0 in shape:
        return ()
    width = prod(shape[1:])
    found = []
    for row in range(min(ROWS, shape[0])):
        raw = memoryview(bytearray(min(COLUMNS, width) * dtype.itemsize))
        source.read_into(row * width * dtype.itemsize, [raw])
        found.append(tuple(float(value) for value in widened(raw, dtype)))
    return tuple(found)
