"""A plan, for scripts and for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from mmconvert.report.reporter import SCHEMA
from mmconvert.report.tables import table
from mmconvert.units import human_bytes

if TYPE_CHECKING:
    from mmconvert.api import Explanation, Plan
    from mmconvert.remark import Remark


def plan_document(plan: Plan) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        **plan.facts,
        "out": str(plan.out),
        "bytes_to_write": plan.bytes_to_write,
        "tensors": [
            {
                "key": tensor.key,
                "file": output.layout.name,
                "source": tensor.origin,
                "shape": list(tensor.shape),
                "dtype": tensor.dtype.name,
                "rule": tensor.rule,
                "bytes": tensor.nbytes,
            }
            for output in plan.outputs
            for tensor in output.tensors
        ],
        "documents": sorted(plan.documents),
        "carried": list(plan.carried),
        "dropped": [{"subject": each.subject, "why": each.why} for each in plan.dropped],
        "invented": [{"subject": each.subject, "why": each.why} for each in plan.invented],
        "warnings": list(plan.warnings),
    }


def draw_plan(plan: Plan) -> None:
    rows = [
        (
            tensor.origin or "-",
            output.name_of(tensor),
            " x ".join(map(str, tensor.shape)),
            tensor.dtype,
            output.layout.name,
            tensor.rule,
        )
        for output in plan.outputs
        for tensor in output.tensors
    ]
    table("", ("source", "target", "shape", "dtype", "file", "how"), rows)
    for title, remarks in (("invented", plan.invented), ("dropped", plan.dropped)):
        if remarks:
            print(f"{title}:", *grouped(remarks), sep="\n  ")
    if plan.carried:
        print(f"carried: {', '.join(plan.carried)}")
    print(" -> ".join(plan.facts["path"]))
    print(f"{len(rows)} tensors, {human_bytes(plan.bytes_to_write)} to write to {plan.out}")


def grouped(remarks: Iterable[Remark]) -> list[str]:
    """For each reason a line: the first thing that it is given for, and how many more there are."""
    subjects: dict[str, list[str]] = {}
    for each in remarks:
        subjects.setdefault(each.why, []).append(each.subject)
    return [
        f"{first} and {len(others):,} more: {why}" if others else f"{first}: {why}"
        for why, (first, *others) in subjects.items()
    ]


def explanation_document(found: Explanation) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "source": found.source,
        "source_file": found.source_file,
        "target": found.target,
        "target_file": found.target_file,
        "shape": list(found.shape),
        "dtypes": list(found.dtypes),
        "rule": found.rule,
        "steps": [vars(step) for step in found.steps],
        "rows": list(found.rows),
        "before": [_finite(row) for row in found.before],
        "after": [_finite(row) for row in found.after],
        "also": list(found.also),
        "note": found.note,
    }


def _finite(row: Sequence[float]) -> list[float | None]:
    """JSON has no word for the others."""
    return [value if isfinite(value) else None for value in row]


def draw_explanation(found: Explanation) -> None:
    if found.target is None:
        print(f"{found.source}: is dropped: {found.note}")
        return
    shape, dtypes = " x ".join(map(str, found.shape)), " -> ".join(dict.fromkeys(found.dtypes))
    print(f"{found.source or 'nothing'} ({found.source_file or '-'})")
    print(f"  becomes {found.target} ({found.target_file}): {shape}, {dtypes}")
    print(f"  {found.rule}")
    for other in found.also:
        print(f"  and {other} as well")
    for step in found.steps:
        print(f"  {step.hop}: {step.before} -> {step.after}: {step.rule}")
        if step.source:
            print(f"    known from: {step.source}")
    if found.rows:
        rows = zip(range(len(found.rows)), found.rows, found.before, found.after, strict=True)
        table(
            "",
            ("row", "is the source's row", "before: the source in its order", "after: the target in its"),
            [(at, origin, _values(before), _values(after)) for at, origin, before, after in rows],
        )
    if found.note:
        print(f"  {found.note}")


def _values(row: Sequence[float]) -> str:
    return "  ".join(f"{value:.6g}" for value in row)
