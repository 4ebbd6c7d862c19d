"""What a config demands: the table of keys and shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmconvert.report.reporter import SCHEMA
from mmconvert.report.tables import table
from mmconvert.units import human_bytes

if TYPE_CHECKING:
    from mmconvert.api import Demands


def keys_document(found: Demands) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "model": found.model,
        "format": found.format,
        "release": str(found.release) if found.release else None,
        "tensors": {
            key: {"shape": list(origin.shape), "part": origin.pair.part} for key, origin in found.tensors.items()
        },
        "parameters": found.parameters,
        "bytes": found.nbytes,
    }


def draw_keys(found: Demands) -> None:
    rows = [(key, " x ".join(map(str, origin.shape)), origin.pair.part) for key, origin in found.tensors.items()]
    table("", ("tensor", "shape", "part"), rows)
    release = f" {found.release}" if found.release else ""
    size = f", {human_bytes(found.nbytes)}" if found.nbytes is not None else ""
    print(f"{found.model}, format {found.format}{release}: {len(rows)} tensors, {found.parameters:,} parameters{size}")
