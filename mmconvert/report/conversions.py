"""A plan, for scripts and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmconvert.report.reporter import SCHEMA
from mmconvert.report.tables import table
from mmconvert.units import human_bytes

if TYPE_CHECKING:
    from mmconvert.api import Plan


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
            tensor.key,
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
            print(f"{title}:")
            for each in remarks:
                print(f"  {each.subject}: {each.why}")
    if plan.carried:
        print(f"carried: {', '.join(plan.carried)}")
    print(" -> ".join(plan.facts["path"]))
    print(f"{len(rows)} tensors, {human_bytes(plan.bytes_to_write)} to write to {plan.out}")
