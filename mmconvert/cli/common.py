"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from mmconvert.errors import MMConvertError, UsageError
from mmconvert.releases import Release
from mmconvert.report import Reporter

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


def release(text: str | None, option: str) -> Release | None:
    """A release as a user writes it. Raises UsageError."""
    try:
        return Release.parse(text) if text is not None else None
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
