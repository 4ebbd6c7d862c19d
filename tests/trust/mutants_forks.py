"""Stand-ins for the process that opens a foreign `.mdl` file, so that thousands of files can be tried.

Of the tenth of a second that a process takes to open a file, all but a hundredth goes by until h5py is there. A copy of
a process that has it already runs the same code under the same limits, and a crash is a crash of its own.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from mmconvert.containers import mdl_child, mdl_read


class Copied:
    """A `subprocess.Popen` of `mdl_child` that is a copy of this process instead."""

    def __init__(self, command: Sequence[str], **_: Any) -> None:
        import h5py  # noqa: F401

        reading, writing = os.pipe()
        self._status: int | None = None
        self._number = os.fork()
        if self._number == 0:
            _become_child(command[command.index(mdl_read.CHILD[-1]) + 1 :], writing)
        os.close(writing)
        self.stdout = os.fdopen(reading, "rb")

    def __enter__(self) -> Copied:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.wait()

    def wait(self) -> int:
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self._number, 0)[1])
        return self._status

    def kill(self) -> None:
        if self._status is None:
            os.kill(self._number, signal.SIGKILL)


def _become_child(arguments: Sequence[str], writing: int) -> None:
    status = 1
    try:
        with os.fdopen(writing, "w") as sys.stdout:
            mdl_child.main(*arguments)
        status = 0
    finally:
        os._exit(status)


class Saying:
    """A `subprocess.Popen` that answers whatever it is asked with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.stdout = io.BytesIO(answer)

    def __call__(self, *_: Any, **__: Any) -> Saying:
        return Saying(self._answer)

    def __enter__(self) -> Saying:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self) -> int:
        return 0

    def kill(self) -> None:
        pass


@contextmanager
def opened_by(process: Any) -> Iterator[None]:
    """Have `mdl_read` start `process` in place of a `subprocess.Popen`."""
    stand_in = SimpleNamespace(Popen=process, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mdl_read, "subprocess", stand_in)
        yield
