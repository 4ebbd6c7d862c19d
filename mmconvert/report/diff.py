"""What differs between two checkpoints."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from mmconvert.paths import ABSENT
from mmconvert.report.reporter import SCHEMA
from mmconvert.report.tables import table
from mmconvert.units import human_bytes

if TYPE_CHECKING:
    from mmconvert.difference import Apart, Difference


def difference_document(found: Difference) -> dict[str, Any]:
    """Pairs are `a` and `b`; a config field has only those of the two that are there.

    JSON has no infinity: `max_abs` is null where the values are infinitely far apart.
    """
    return {
        "schema": SCHEMA,
        "a": found.a,
        "b": found.b,
        "equal": found.equal,
        "only_a": list(found.only_a),
        "only_b": list(found.only_b),
        "shapes": [{"key": key, "a": list(a), "b": list(b)} for key, (a, b) in found.shapes.items()],
        "dtypes": [{"key": key, "a": a.name, "b": b.name} for key, (a, b) in found.dtypes.items()],
        "values": [
            {
                "key": key,
                "max_abs": each.max_abs if isfinite(each.max_abs) else None,
                "first": each.first,
                "nan": each.nan,
            }
            for key, each in found.values.items()
        ],
        "config": [
            {"path": path} | {side: value for side, value in zip("ab", pair, strict=True) if value is not ABSENT}
            for path, pair in found.config.items()
        ],
        "tensors": found.tensors,
        "bytes": found.nbytes,
        "notes": list(found.notes),
    }


def draw_difference(found: Difference) -> None:
    for note in found.notes:
        print(f"note: {note}")
    if found.equal:
        print(f"{found.a} and {found.b} are the same: {found.tensors} tensors, {human_bytes(found.nbytes)}")
    if found.config:
        table("", ("config", "in A", "in B"), [(path, *map(_field, pair)) for path, pair in found.config.items()])
    for side, keys in (("A", found.only_a), ("B", found.only_b)):
        if keys:
            table("", (f"only in {side}",), [(key,) for key in keys])
    if found.shapes:
        table("", ("shape", "in A", "in B"), [(key, *map(_shape, pair)) for key, pair in found.shapes.items()])
    if found.dtypes:
        table("", ("element type", "in A", "in B"), [(key, *pair) for key, pair in found.dtypes.items()])
    if found.values:
        rows = [(key, _distance(each), f"{each.first:,}") for key, each in found.values.items()]
        table("", ("values", "largest difference", "first at element"), rows)


def summarised(found: Difference) -> str:
    """How many things of each kind differ, in one line."""
    kinds = {
        "only in A": len(found.only_a),
        "only in B": len(found.only_b),
        "other shape": len(found.shapes),
        "other element type": len(found.dtypes),
        "other values": len(found.values),
        "config fields": len(found.config),
    }
    said = ", ".join(f"{kind}: {count:,}" for kind, count in kinds.items() if count)
    return f"{found.b} differs from {found.a}: {said}"


def _field(value: Any) -> str:
    return "-" if value is ABSENT else repr(value)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a scalar"


def _distance(each: Apart) -> str:
    if each.nan:
        return f"infinite: {each.nan:,} NaN on one side only"
    if each.max_abs == 0:
        return "0: bytes differ, values do not"
    return f"{each.max_abs:.6g}" if isfinite(each.max_abs) else "infinite"
