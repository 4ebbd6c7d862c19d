"""What there is: the list of converters, and what lies at a path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmconvert.report.reporter import SCHEMA
from mmconvert.report.tables import table
from mmconvert.units import human_bytes

if TYPE_CHECKING:
    from mmconvert.api import Inspection
    from mmconvert.converter import Converter
    from mmconvert.scan import Scan


def converters_document(converters: Iterable[Converter]) -> list[dict[str, Any]]:
    return [
        {
            "model": each.model,
            "a": each.a.name,
            "b": each.b.name,
            "a_releases": [str(release) for release in each.a_releases],
            "b_releases": [str(release) for release in each.b_releases],
            "note": each.note,
        }
        for each in converters
    ]


def inspection_document(found: Inspection, keys: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "path": found.path,
        "model": found.model,
        "format": found.format,
        "release": found.release,
        "known_by": found.known_by,
        "release_from": found.release_from,
        "tensors": len(found.tensors),
        "parameters": found.parameters,
        "bytes": found.nbytes,
        "dtypes": dict(found.dtypes),
        "sidecars": list(found.sidecars),
        "set_aside": dict(found.set_aside),
        "notes": list(found.notes),
        "problem": found.problem,
        "converts_to": list(found.converts_to),
        "refused": dict(found.refused),
    }
    if found.scan is not None:
        document["scan"] = {
            "nan": dict(found.scan.nan),
            "infinite": dict(found.scan.infinite),
            "bytes": found.scan.nbytes,
        }
    if keys:
        document["keys"] = {
            key: {"shape": list(ref.shape), "dtype": ref.dtype.name, "file": ref.file}
            for key, ref in found.tensors.items()
        }
    return document


def draw_converters(converters: Iterable[Converter]) -> None:
    rows = []
    for each in converters:
        sides = (
            f"{form.name} {releases[0]} to {releases[-1]}" if releases else form.name
            for form, releases in ((each.a, each.a_releases), (each.b, each.b_releases))
        )
        rows.append((each.model, *sides, each.note))
    table("", ("model", "one side", "the other", "note"), rows)


def draw_inspection(found: Inspection, keys: bool) -> None:
    release = f" {found.release} (by {found.release_from})" if found.release else ""
    print(f"{found.path}: {found.model}, format {found.format}{release}, known by {found.known_by}")
    dtypes = ", ".join(f"{count} {name}" for name, count in found.dtypes.items())
    print(f"  {found.parameters:,} parameters in {len(found.tensors)} tensors ({dtypes}), {human_bytes(found.nbytes)}")
    if found.sidecars:
        print(f"  travels along: {', '.join(found.sidecars)}")
    if found.set_aside:
        print(f"  set aside: {_grouped(found.set_aside)}")
    for note in found.notes:
        print(f"  note: {note}")
    print(f"  converts to: {', '.join(found.converts_to) or 'nothing'}")
    for target, why in found.refused.items():
        print(f"  to {target} it would be refused: {why}")
    if found.scan is not None:
        _draw_scan(found.scan)
    if keys:
        rows = [
            (key, " x ".join(map(str, ref.shape)), ref.dtype, Path(ref.file).name) for key, ref in found.tensors.items()
        ]
        table("", ("tensor", "shape", "dtype", "file"), rows)


def _draw_scan(scan: Scan) -> None:
    odd = {**scan.nan, **scan.infinite}
    what = f"not every value is finite in {len(odd)} tensors:" if odd else "every value is finite"
    print(f"  scanned {human_bytes(scan.nbytes)}: {what}")
    if odd:
        rows = [(key, f"{scan.nan.get(key, 0):,}", f"{scan.infinite.get(key, 0):,}") for key in odd]
        table("", ("tensor", "NaN", "infinite"), rows)


def _grouped(set_aside: Mapping[str, str]) -> str:
    counts: dict[str, int] = {}
    for why in set_aside.values():
        counts[why] = counts.get(why, 0) + 1
    return "; ".join(f"{count} ({why})" for why, count in counts.items())
