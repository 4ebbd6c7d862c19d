"""The command `mmsimple`: parses, calls, prints; no logic of its own. Importing it needs no torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from mmconvert import __version__
from mmconvert.cli.common import PATH, reporting
from mmconvert.cli.process import run
from mmconvert.errors import UsageError
from mmconvert.report import Reporter

COMING = ("train", "prepare", "generate", "plot")


class _Commands(click.Group):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMING:
            ctx.fail(f"'{cmd_name}' is not there yet: mmsimple {__version__} has {', '.join(self.list_commands(ctx))}.")
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    invoke_without_command=True,
)
@click.version_option(__version__, prog_name="mmsimple")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train the simple multimodal model and generate text with it.

    In this release it validates configs. Coming: train, prepare (annotations to HDF5), generate and plot. Converting
    checkpoints is there today: see mmconvert --help.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@click.argument("config", type=PATH, metavar="CONFIG")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples of a step  [default: the file's, or 1]")
@click.option(
    "--sequence-length",
    type=click.IntRange(min=1),
    help="Positions of a sample, image tokens too  [default: max_position_embeddings]",
)
@reporting
def validate(reporter: Reporter, config: Path, batch_size: int | None, sequence_length: int | None) -> None:
    """Check the model in CONFIG, a params file: its parts, what trains, and the memory of a step. Reads no data."""
    _check_torch()
    from mmsimple.report import draw_size, size_document
    from mmsimple.size import size_of_file

    found = size_of_file(config, batch_size=batch_size, sequence_length=sequence_length)
    reporter.result(size_document(found), lambda: draw_size(found))


def _check_torch() -> None:
    """Raise UsageError where torch is not installed."""
    if find_spec("torch") is None:
        raise UsageError('this needs torch: pip install "mmconvert[train]"')


def main() -> None:
    """Run the command line; the exit codes are those of `mmconvert.errors`."""
    run(cli, "mmsimple")
