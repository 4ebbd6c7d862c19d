"""The command `mmconvert`: parses, calls the api, prints; no logic of its own."""

from __future__ import annotations

import click

from mmconvert import __version__
from mmconvert.cli import convert, diff, doctor, look, relocate, synth, verify
from mmconvert.cli.process import run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="mmconvert", message="%(prog)s %(version)s")
def cli() -> None:
    """Convert multimodal checkpoints between Hugging Face, LLaVA and Cerebras (CS) layouts, and prove it."""


for page in (look, convert, verify, diff, doctor, relocate, synth):
    for command in page.COMMANDS:
        cli.add_command(command)


def main() -> None:
    """Run the command line; the exit codes are those of `mmconvert.errors`."""
    run(cli, "mmconvert")
