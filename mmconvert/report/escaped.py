"""Names and words out of a stranger's files, on the screen: they show, and do nothing else there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from mmconvert.excerpt import printable


class _Escaped:
    """A stream that writes what does not print escaped to the one beneath it."""

    def __init__(self, beneath: TextIO) -> None:
        self.beneath = beneath

    def write(self, text: str) -> int:
        self.beneath.write(printable(text, "\n"))
        return len(text)

    def flush(self) -> None:
        self.beneath.flush()


@contextmanager
def escaped() -> Iterator[None]:
    """While it is entered, what is printed on stdout is escaped; `beneath` is for who colours what it writes."""
    before = sys.stdout
    if before is not None:  # as it is where it was closed
        sys.stdout = _Escaped(before)
    try:
        yield
    finally:
        sys.stdout = before


def beneath() -> TextIO | None:
    """Stdout as it is without `escaped`; None where it was closed."""
    return sys.stdout.beneath if isinstance(sys.stdout, _Escaped) else sys.stdout
