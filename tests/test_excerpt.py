"""What errors repeat of a user's words is short and stays in its line."""

from __future__ import annotations

import pytest

from mmconvert.excerpt import LONGEST, excerpt


@pytest.mark.parametrize("written", ["hidden_size", "x" * LONGEST, "größe", "", r"^text\.model", 7, None, [1, "a"]])
def test_what_is_short_and_prints_is_repeated_as_it_is(written: object) -> None:
    assert excerpt(written) == str(written)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("\r\t\x1b[2J", r"\r\t\x1b[2J"),
        ("a\u2028b\u202e", r"a\u2028b\u202e"),
        ("\U000e0001", r"\U000e0001"),
        (["a\nb"], r"['a\nb']"),
    ],
)
def test_what_does_not_print_is_escaped(written: object, shown: str) -> None:
    assert excerpt(written) == shown


@pytest.mark.parametrize("written", ["x" * 61, "x" * 10_000, "\n" * 31, "x" * 59 + "\n"])
def test_what_is_long_is_cut_off(written: str) -> None:
    shown = excerpt(written)
    assert len(shown) == LONGEST == 60
    assert shown == repr(written)[1:61]
