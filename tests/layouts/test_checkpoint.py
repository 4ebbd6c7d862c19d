"""Paths that the system will not look at: a refusal or a wrong use, and no error of the system's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mmconvert.diagnosis import examine
from mmconvert.difference import difference
from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts import readable, recognise
from mmconvert.layouts.described import describe
from mmconvert.relocation import relocate

Make = Callable[..., Path]
# What is done with a path.
USES: dict[str, Callable[[Path], object]] = {
    "recognise": recognise,
    "describe": lambda path: describe("llama", path),
    "examine": examine,
    "difference": lambda path: difference(path, path),
    "relocate": relocate,
}


def test_what_cannot_be_read_is_refused_with_its_name() -> None:
    with pytest.raises(InputRefused, match=r"^inner: cannot be read: Permission denied$"), readable(Path("outer")):
        raise PermissionError(13, "Permission denied", "inner")
    with pytest.raises(InputRefused, match=r"^outer: cannot be read: Input/output error$"), readable(Path("outer")):
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", ["x" * 300, "x/" * 5000, "a\0b"])
def test_a_path_that_no_file_can_have_is_that_of_none(use: str, name: str) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        USES[use](Path(name))


@pytest.mark.parametrize(
    ("use", "name"),
    [
        ("recognise", "config.json"),
        ("recognise", "model.safetensors"),
        ("recognise", "tokenizer.model"),
        ("describe", "config.json"),
        ("difference", "config.json"),
        ("difference", "model.safetensors"),
        ("relocate", "config.json"),
    ],
)
def test_a_file_that_cannot_be_looked_at_is_refused(
    use: str, name: str, make_llama: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_file(path: Path) -> bool:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return os.path.isfile(path)

    folder = make_llama(tmp_path / "llama")
    monkeypatch.setattr(Path, "is_file", is_file)
    with pytest.raises(InputRefused, match=rf"llama/{re.escape(name)}: cannot be read: Permission denied"):
        USES[use](folder)
