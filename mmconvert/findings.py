"""What a comparison found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Findings:
    """What comparing found: all is well where `problems` is empty.

    `tensors` and `nbytes` say how much was compared; `notes` are worth knowing and no problem.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tensors: int = 0
    nbytes: int = 0
