"""A command line as a process: signals, errors in one or two lines, exit codes. mmsimple's is one too."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from mmconvert.errors import MMConvertError


class _Terminated(BaseException):
    """SIGTERM, as an exception: so that a half-written target is cleaned up on the way out."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def run(commands: click.Group, name: str) -> NoReturn:
    """Run the command line of the program `name`; the exit codes are those of `mmconvert.errors`."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = commands.main(prog_name=name, standalone_mode=False)
    except MMConvertError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except click.ClickException as error:
        # In two lines, as every error of ours.
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else name
        print(f"error: {error.format_message()}\nsee `{where} -h`", file=sys.stderr)
        code = 2
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except _Terminated:
        code = 143
    except BrokenPipeError:
        # The reader of our output has gone (`mmconvert list | head`); nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
