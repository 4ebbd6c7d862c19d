"""SIGTERM as a question, which is answered when an update is done."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Self

EXIT = 128 + signal.SIGTERM


class Stopping:
    """While it is entered, SIGTERM ends nothing but sets `is_asked`."""

    def __init__(self) -> None:
        self.is_asked = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True
