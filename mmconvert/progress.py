"""How far the bytes have come: what a long pass over a checkpoint tells whoever is watching.

Other long work tells the same way how many of its pieces are done.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told about a pass over the bytes. Calls never overlap, but they may come from different threads."""

    def start(self, total_bytes: int) -> None:
        """The pass begins and will come past `total_bytes` bytes."""
        ...

    def advance(self, nbytes: int) -> None:
        """Another `nbytes` bytes are done."""
        ...

    def finish(self) -> None:
        """The pass is over, whether it succeeded or not."""
        ...


class Silent:
    """A `Progress` that nobody watches."""

    def start(self, total_bytes: int) -> None:
        pass

    def advance(self, nbytes: int) -> None:
        pass

    def finish(self) -> None:
        pass
