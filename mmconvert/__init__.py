"""mmconvert: checkpoints of multimodal models from one layout to another, planned from headers, proved bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmconvert.api import (
        Checkpoint,
        Demands,
        Diagnosis,
        Difference,
        Explanation,
        Findings,
        Hints,
        Inspection,
        Options,
        Parity,
        Plan,
        Relocation,
        convert,
        diff,
        doctor,
        explain,
        inspect,
        keys,
        open,
        plan,
        read_state,
        recognise,
        relocate,
        synth,
        verify,
        verify_forward,
        write,
        write_state,
    )

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "Demands",
    "Diagnosis",
    "Difference",
    "Explanation",
    "Findings",
    "Hints",
    "Inspection",
    "Options",
    "Parity",
    "Plan",
    "Relocation",
    "convert",
    "diff",
    "doctor",
    "explain",
    "inspect",
    "keys",
    "open",
    "plan",
    "read_state",
    "recognise",
    "relocate",
    "synth",
    "verify",
    "verify_forward",
    "write",
    "write_state",
]


def __getattr__(name: str) -> Any:
    # The engine is imported when first used: a command that lists converters should not wait for it.
    if name in __all__:
        from mmconvert import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
