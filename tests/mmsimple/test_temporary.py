"""Folders for programs that read nothing but files."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from mmconvert.errors import DiskError
from mmsimple.temporary import temporary_folder


def test_a_folder_is_there_as_long_as_it_is_used() -> None:
    with temporary_folder({"a": b"1", "b": b"2"}) as folder:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"1", "b": b"2"}
    assert not folder.exists()


def test_no_room_for_it_is_a_disk_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(Path, "write_bytes", full)
    with (
        pytest.raises(DiskError, match=f"{tmp_path}: No space left on device; 3 B needed, "),
        temporary_folder({"a": b"123"}),
    ):
        pytest.fail("it was entered")
    assert list(tmp_path.iterdir()) == []
