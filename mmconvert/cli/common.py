"""Options that several commands share, mmsimple's among them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mmconvert.errors import MMConvertError, UsageError
from mmconvert.releases import Release
from mmconvert.report import Reporter

if TYPE_CHECKING:
    from mmconvert.api import Hints

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
EXISTING = click.Path(path_type=Path, exists=True)


def stacked(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Several click options as one decorator, shown in the order given."""

    def decorate(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


# What a user may say of a checkpoint that it may not say itself.
SAYING = stacked(
    click.option("--config", type=EXISTING, help="The params file of a CS checkpoint, where it lies elsewhere."),
    click.option("--model", help="The model, where the files do not say."),
    click.option("--from-release", help="The CS release of the source, where it does not say."),
    click.option(
        "--encoder", type=click.IntRange(min=0), help="One image encoder of a CS multimodal checkpoint, from 0."
    ),
    click.option(
        "--vision-tower", type=FOLDER, help="The folder of the vision tower, where the config's path is wrong."
    ),
)


def reporting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command its reporter, and the options that set it up."""

    @stacked(
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
        click.option("-q", "--quiet", is_flag=True, help="No notes, no progress, no closing words."),
        click.option("-v", "--verbose", is_flag=True, help="More notes."),
        click.option("--log-file", type=PATH, help="Notes, warnings and errors go there too."),
    )
    @wraps(function)
    def command(as_json: bool, quiet: bool, verbose: bool, log_file: Path | None, **arguments: Any) -> Any:
        try:
            reporter = Reporter(as_json, quiet, verbose, log_file)
        except OSError as error:
            raise UsageError(f"--log-file {log_file}: {error.strerror}") from error
        try:
            return function(reporter=reporter, **arguments)
        except MMConvertError as error:
            reporter.error(str(error))
            raise SystemExit(error.exit_code) from error

    return command


def hints(
    config: Path | None, model: str | None, from_release: str | None, encoder: int | None, vision_tower: Path | None
) -> Hints:
    """What the options of `SAYING` say. Raises UsageError."""
    from mmconvert import api

    return api.Hints(
        config=config,
        model=model,
        release=release(from_release, "--from-release"),
        encoder=encoder,
        vision_tower=vision_tower,
    )


def release(text: str | None, option: str) -> Release | None:
    """A release as a user writes it. Raises UsageError."""
    try:
        return Release.parse(text) if text is not None else None
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
