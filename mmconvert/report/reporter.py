"""Where a command speaks, and its progress bar."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from mmconvert.excerpt import printable
from mmconvert.report.escaped import escaped

if TYPE_CHECKING:
    from mmconvert.progress import Progress

# The version of every JSON document; fields are added, never changed.
SCHEMA = 1


class Reporter:
    """Where a command speaks: `--json`, `-q`, `-v` and `--log-file` are settled here."""

    def __init__(self, as_json: bool = False, quiet: bool = False, verbose: bool = False, log_file: Path | None = None):
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self._log: TextIO | None = log_file.open("a", encoding="utf-8") if log_file else None

    def result(self, document: Any, draw: Callable[[], None]) -> None:
        """The command's answer: one JSON document, or what `draw` prints for people."""
        if self.as_json:
            print(json.dumps(document, indent=2, ensure_ascii=False))
        else:
            with escaped():
                draw()

    def summary(self, document: Any, draw: Callable[[], None]) -> None:
        """What a command that has done something says at its end; `-q` needs no words."""
        if self.as_json or not self.quiet:
            self.result(document, draw)

    def note(self, text: str) -> None:
        self._say(text, hidden=self.quiet)

    def detail(self, text: str) -> None:
        self._say(text, hidden=not self.verbose)

    def warn(self, text: str) -> None:
        self._say(f"warning: {text}", hidden=False)

    def error(self, text: str) -> None:
        self._say(f"error: {text}", hidden=False)

    def _say(self, text: str, hidden: bool) -> None:
        text = printable(text, "\n")
        if not hidden:
            with suppress(OSError):  # nobody is there to be told
                print(text, file=sys.stderr)
        if self._log is not None:
            try:
                print(text, file=self._log, flush=True)
            except OSError as error:
                # A conversion of hours is not ended for want of a log.
                log, self._log = self._log, None
                self.warn(f"--log-file {log.name}: {error.strerror}; nothing more is written there")

    @contextmanager
    def progress(self, what: str, *, of_bytes: bool = True) -> Iterator[Progress | None]:
        """A bar with rate and time left, on a terminal only; what it is told are bytes, or things to be counted."""
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        with ExitStack() as stack:
            yield _Bar(what, stack, of_bytes)


class _Bar:
    """`Progress` drawn by rich on stderr."""

    def __init__(self, what: str, stack: ExitStack, of_bytes: bool):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._what = what
        self._bar = stack.enter_context(
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                *((DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(),)),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
        )
        self._task: Any = None
        self._held = 0
        self._shown = 0.0

    def start(self, total_bytes: int) -> None:
        self._task = self._bar.add_task(self._what, total=total_bytes)

    def advance(self, nbytes: int) -> None:
        # Drawing is slow next to copying: a few times a second is enough.
        self._held += nbytes
        if monotonic() - self._shown > 0.1:
            self._flush()

    def finish(self) -> None:
        self._flush()

    def _flush(self) -> None:
        self._bar.update(self._task, advance=self._held)
        self._held, self._shown = 0, monotonic()
