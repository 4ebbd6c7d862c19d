"""The kinds of failure have the exit codes that scripts rely on."""

from __future__ import annotations

import pytest

from mmconvert import errors
from mmconvert.errors import InputRefused, MMConvertError


def test_every_kind_has_its_exit_code() -> None:
    codes = {kind.__name__: kind.exit_code for kind in errors.MMConvertError.__subclasses__()}
    assert codes == {
        "UsageError": 2,
        "InputRefused": 3,
        "NoConversion": 4,
        "OutputRefused": 5,
        "VerificationFailed": 6,
        "DiskError": 7,
        "TrainingStopped": 8,
    }


@pytest.mark.parametrize("text", ["", "model.bin: 'größe': is no size", "two lines:\nof which both count", "x" * 1200])
def test_a_text_that_is_short_and_prints_is_said_as_it_is(text: str) -> None:
    assert str(InputRefused(text)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: data/\0 is missing", r"a: data/\x00 is missing"),
        ("a: \x1b]0;title\x07\r is no type\nre-save it", "a: \\x1b]0;title\\x07\\r is no type\nre-save it"),
        ("folder/\udcff: is missing", r"folder/\udcff: is missing"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
    ],
)
def test_what_a_terminal_would_obey_or_cannot_show_is_escaped(text: str, said: str) -> None:
    assert str(MMConvertError(text)) == said


def test_of_a_long_text_the_beginning_and_the_end_are_said() -> None:
    said = str(InputRefused(f"config.json: model_type is '{'x' * 1_000_000}'; use another"))
    assert len(said) < 1300
    assert said.startswith("config.json: model_type is 'xxx")
    assert said.endswith("xxx'; use another")
