"""What a user wrote, as errors repeat it."""

from __future__ import annotations

LONGEST = 60


def excerpt(written: object) -> str:
    """One line of at most 60 characters; those that do not print, such as a newline, are escaped."""
    return printable(str(written)[:LONGEST])[:LONGEST]


def printable(text: str, kept: str = "") -> str:
    """The text, in which no character but those `kept` moves a cursor, turns a line round, or cannot be encoded."""
    return "".join(each if each.isprintable() or each in kept else ascii(each)[1:-1] for each in text)
