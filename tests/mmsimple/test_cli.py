"""`mmsimple` before it has commands: it says what is coming, and what is there instead."""

from __future__ import annotations

from click.testing import CliRunner

from mmconvert import __version__
from mmsimple.cli import main


def test_without_arguments_it_explains_itself() -> None:
    done = CliRunner().invoke(main, [])
    assert done.exit_code == 0
    assert "train, prepare" in done.output
    assert "see mmconvert --help" in " ".join(done.output.split())


def test_help_is_the_same() -> None:
    assert CliRunner().invoke(main, ["-h"]).output == CliRunner().invoke(main, []).output


def test_a_command_that_is_not_there_yet_is_a_usage_error() -> None:
    done = CliRunner().invoke(main, ["train", "config.yaml", "--model-dir", "run"])
    assert done.exit_code == 2
    assert "'train' is not there yet" in done.output


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"mmsimple, version {__version__}\n"
