"""`mmsimple` on the command line: so far it only says what is coming. Importing it needs no torch."""

from __future__ import annotations

import click

from mmconvert import __version__


@click.command(context_settings={"help_option_names": ["-h", "--help"], "allow_interspersed_args": False})
@click.version_option(__version__, prog_name="mmsimple")
@click.argument("command", nargs=-1, metavar="")
@click.pass_context
def main(context: click.Context, command: tuple[str, ...]) -> None:
    """Train the simple multimodal model and generate text with it.

    None of it is in this release. Coming: train, prepare (annotations to HDF5), generate and plot. Converting
    checkpoints is there today: see mmconvert --help.
    """
    if command:
        raise click.UsageError(f"'{command[0]}' is not there yet: mmsimple {__version__} has no commands.")
    click.echo(context.get_help())
