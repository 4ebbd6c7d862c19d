"""How far what two checkpoints compute is apart."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from mmconvert.report.reporter import SCHEMA
from mmconvert.report.tables import table

if TYPE_CHECKING:
    from mmconvert.parity import Parity

# What a model is for first, what leads there after it.
ORDER = ("logits", "text logits", "image embeds", "projected image features", "image features")


def parity_document(found: Parity) -> dict[str, Any]:
    """JSON has no infinity: `max_abs` and `max_rel` are null where outputs are infinitely far apart.

    `kl` and `argmax` are null for outputs that are no logits.
    """
    return {
        "schema": SCHEMA,
        "a": found.a,
        "b": found.b,
        "ok": found.ok,
        "tolerance": found.tolerance,
        "seed": found.seed,
        "outputs": [
            {
                "name": name,
                "shape": list(each.shape),
                "largest": each.largest,
                "max_abs": each.max_abs if isfinite(each.max_abs) else None,
                "max_rel": each.max_rel if isfinite(each.max_rel) else None,
                "allowed": each.allowed,
                "nonfinite": each.nonfinite,
                "kl": each.kl,
                "argmax": each.argmax,
                "ok": each.ok,
            }
            for name, each in found.outputs.items()
        ],
        "problems": list(found.problems),
        "notes": list(found.notes),
    }


def draw_parity(found: Parity) -> None:
    if found.outputs:
        columns = ("output", "shape", "largest difference", "of the largest value", "allowed", "mean KL", "same token")
        rows = [
            (
                name,
                " x ".join(map(str, each.shape)),
                _number(each.max_abs),
                _number(each.max_rel),
                _number(each.allowed),
                "-" if each.kl is None else f"{each.kl:.1e} nats",
                # Rounding may not turn a share below 1 into one.
                "-" if each.argmax is None else f"{int(each.argmax * 1000) / 10:g} %",
            )
            for name, each in found.outputs.items()
        ]
        table("", columns, rows)
    for problem in found.problems:
        print(problem)
    if found.ok:
        print(f"verified: {verdict(found)}")


def verdict(found: Parity) -> str:
    """How near B is to A, in the output that the model is for; for sides that agree."""
    name = next((each for each in ORDER if each in found.outputs), next(iter(found.outputs)))
    each = found.outputs[name]
    within = f"{name} within {_number(each.max_abs)} (tolerance {_number(each.allowed)})"
    return f"{found.b} computes what {found.a} does: {within}"


def _number(value: float) -> str:
    return f"{value:.1e}" if isfinite(value) else "infinite"
