"""Threads of other packages: what they fail of is told by whoever uses them, and not in a traceback of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def silent(is_meant: Callable[[threading.Thread], bool]) -> Iterator[None]:
    """Have threads that are meant print nothing when an exception ends them."""
    before = threading.excepthook

    def tell(args: threading.ExceptHookArgs) -> None:
        if args.thread is None or not is_meant(args.thread):
            before(args)

    threading.excepthook = tell
    try:
        yield
    finally:
        threading.excepthook = before
