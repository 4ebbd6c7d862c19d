"""CS releases are numbers, not text."""

from __future__ import annotations

import pytest

from mmconvert.releases import Release, span


def test_ten_comes_after_nine() -> None:
    assert Release.parse("2.10") > Release.parse("2.9") > Release.parse("1.10")


@pytest.mark.parametrize("text", ["2.4", "cs-2.4", "2.4.0", "2.4.1.post1"])
def test_a_release_has_several_spellings(text: str) -> None:
    assert Release.parse(text) == Release(2, 4)
    assert str(Release.parse(text)) == "2.4"


@pytest.mark.parametrize("text", ["", "2", "2.", "latest", "hf-2.4", "2.4x", "-2.4", "2.12345"])
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no release"):
        Release.parse(text)


def test_a_span_has_both_ends() -> None:
    assert list(map(str, span("2.8", "2.10"))) == ["2.8", "2.9", "2.10"]
