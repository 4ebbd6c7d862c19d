"""The tables of traps that are installed, as tables: what they tell a user to type exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mmconvert.cli import cli
from mmconvert.diagnosis import AnyReader, readers

READERS = {each.name: each for each in readers()}


def test_the_built_in_readers_are_found() -> None:
    assert {"cs", "llava", "transformers"} <= set(READERS)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_every_trap_says_why_and_what_to_do(reader: AnyReader) -> None:
    for trap in reader.traps:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", trap.name)
        assert trap.why, trap.name
        assert trap.mend, trap.name


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_traps_of_one_name_are_alike(reader: AnyReader) -> None:
    for trap in reader.traps:
        assert {each.severity for each in reader.traps if each.name == trap.name} == {trap.severity}, trap.name


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_every_command_that_mends_is_one_that_there_is(
    reader: AnyReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DIR", "BOTH", "examined"):
        (tmp_path / name).mkdir()
    for trap in reader.traps:
        for command in re.findall(r"`mmconvert (.*?)`", trap.mend):
            name, *arguments = shlex.split(command.replace("{path}", "examined"))
            assert name in cli.commands, trap.name
            cli.commands[name].make_context(name, arguments)
