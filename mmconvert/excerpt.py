"""What a user wrote, as errors repeat it."""

from __future__ import annotations

LONGEST = 60


def excerpt(written: object) -> str:
    """One line of at most 60 characters; those that do not print, such as a newline, are escaped."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(written)[:LONGEST])[:LONGEST]
