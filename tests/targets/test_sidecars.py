"""What travels beside the weights is held at once, so there is a limit to all of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mmconvert.api import plan
from mmconvert.errors import InputRefused
from mmconvert.layouts import recognise
from mmconvert.options import Options
from mmconvert.targets.sidecars import TOTAL_LIMIT

Make = Callable[..., Path]


def sparse(folder: Path, *names: str, size: int) -> None:
    for name in names:
        (folder / name).write_bytes(b"")
        os.truncate(folder / name, size)


def test_files_that_take_more_than_may_be_held_at_once_are_refused(make_llama: Make, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "source")
    sparse(source, "vocab.json", "merges.txt", "added_tokens.json", size=TOTAL_LIMIT // 3)
    with pytest.raises(InputRefused, match=r"source: the files beside the weights, .* have more than 128 MiB"):
        plan(source, tmp_path / "out", to="cs")


def test_a_tokenizer_of_the_users_is_held_to_the_same(make_llama: Make, tmp_path: Path) -> None:
    source, given = make_llama(tmp_path / "source"), tmp_path / "given"
    given.mkdir()
    sparse(given, "vocab.json", "merges.txt", "added_tokens.json", size=TOTAL_LIMIT // 3 + 1)
    with pytest.raises(InputRefused, match="given: the files beside the weights"):
        plan(source, tmp_path / "out", to="cs", options=Options(tokenizer=given))


def test_a_licence_of_more_than_a_mebibyte_does_not_travel(make_llama: Make, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "source")
    sparse(source, "LICENSE", size=1 << 20)
    sparse(source, *(f"LICENSE{at}" for at in range(30)), size=(1 << 20) + 1)
    assert [name for name in recognise(source).sidecars if name.startswith("LICENSE")] == ["LICENSE"]
