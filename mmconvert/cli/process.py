"""A command line as a process: signals, errors in one or two lines, exit codes. mmsimple's is one too."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from io import TextIOWrapper
from itertools import chain
from types import FrameType
from typing import NoReturn

import click

from mmconvert.errors import DiskError, MMConvertError
from mmconvert.excerpt import printable


class _Terminated(BaseException):
    """SIGTERM, as an exception: so that a half-written target is cleaned up on the way out."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def run(commands: click.Group, name: str) -> NoReturn:
    """Run the command line of the program `name`; the exit codes are those of `mmconvert.errors`."""
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, TextIOWrapper):
        # As stderr does it: names of files need not be text.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = commands.main(prog_name=name, standalone_mode=False)
        if sys.stdout is not None:  # as it is where it was closed: `mmconvert list >&-`
            sys.stdout.flush()
    except MMConvertError as error:
        _tell(f"error: {error}")
        code = error.exit_code
    except click.ClickException as error:
        # In two lines, as every error of ours.
        message = printable(error.format_message(), "\n")
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else name
        _tell(f"error: {message}\nsee `{where} -h`")
        code = 2
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except _Terminated:
        code = 143
    except BrokenPipeError:
        code = _unread()
    except OSError as error:
        # What fails at a file names it, and is told of where it happens; this is our output.
        if error.filename is not None:
            raise
        _tell(f"error: stdout: {error.strerror}")
        code = _unread() or DiskError.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def say(pieces: Iterable[str]) -> None:
    """Write text to stdout as it comes, and a line end; no more where nobody reads it."""
    try:
        for piece in chain(pieces, ["\n"]):
            print(printable(piece, "\n\t"), end="", flush=True)
    except BrokenPipeError:
        # Caught here, for click makes an error of ours of it.
        _unread()


def _tell(text: str) -> None:
    with suppress(OSError):  # nobody is there to be told
        print(text, file=sys.stderr)


def _unread() -> int:
    """The reader of our output has gone (`mmconvert list | head`), or its disk is full: what is left goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
