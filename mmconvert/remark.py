"""Something that a user must be able to find out later: what was dropped or invented, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Remark:
    """A tensor, field or file, and what became of it."""

    subject: str
    why: str
