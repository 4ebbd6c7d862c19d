"""Threads that fail without a traceback."""

from __future__ import annotations

import threading

import pytest

from mmsimple.threads import silent


def test_threads_that_are_meant_print_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.thread.name))

    def fail(name: str) -> None:
        thread = threading.Thread(target=lambda: 1 / 0, name=name)
        thread.start()
        thread.join()

    with silent(lambda thread: thread.name == "theirs"):
        fail("theirs")
        fail("ours")
    fail("theirs")
    assert told == ["ours", "theirs"]
