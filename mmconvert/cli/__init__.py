"""The command `mmconvert`: parses, calls the api, prints; no logic of its own."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import click

from mmconvert import __version__
from mmconvert.cli import convert, diff, doctor, look, synth, verify
from mmconvert.errors import MMConvertError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="mmconvert", message="%(prog)s %(version)s")
def cli() -> None:
    """Convert multimodal checkpoints between Hugging Face, LLaVA and Cerebras (CS) layouts, and prove it."""


for command in (*look.COMMANDS, *convert.COMMANDS, *verify.COMMANDS, *diff.COMMANDS, *doctor.COMMANDS, *synth.COMMANDS):
    cli.add_command(command)


class _Terminated(BaseException):
    """SIGTERM, as an exception: so that a half-written target is cleaned up on the way out."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def main() -> None:
    """Run the command line; the exit codes are those of `mmconvert.errors`."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(standalone_mode=False)
    except MMConvertError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except click.ClickException as error:
        # In two lines, as every error of ours.
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "mmconvert"
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
