"""A document is changed together with the manifest that answers for it, wherever a process is killed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mmconvert import amendment, manifest, staging
from mmconvert.amendment import amend
from mmconvert.errors import DiskError, InputRefused, OutputRefused, UsageError, VerificationFailed
from mmconvert.execute import execute
from mmconvert.plans import Plan

OLD, NEW = b"old\n", b"the new one\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a manifest, and a document in a folder of it."""
    return written(tmp_path / "out")


def written(out: Path, digest: str = "xxh3") -> Path:
    execute(Plan(out, (), {"text/config.json": OLD, "other.json": b"{}"}), fsync=False, digest=digest)
    return out


def to(content: bytes) -> Callable[[bytes], bytes]:
    return lambda data: content


def names(folder: Path) -> set[str]:
    return {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()}


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder)}


ALL = {"text/config.json", "other.json", "mmconvert.json"}


@pytest.mark.parametrize("digest", ["xxh3", "sha256"])
def test_the_manifest_follows_the_document(tmp_path: Path, digest: str) -> None:
    folder = written(tmp_path / "out", digest)
    before = json.loads((folder / "mmconvert.json").read_bytes())
    assert amend(folder / "text/config.json", to(NEW)) == (folder / "text/config.json", folder / "mmconvert.json")
    assert (folder / "text/config.json").read_bytes() == NEW
    assert manifest.check_folder(folder).problems == []
    assert names(folder) == ALL
    after = json.loads((folder / "mmconvert.json").read_bytes())
    assert list(after) == list(before)
    assert {name for name in after if after[name] != before[name]} == {"documents", "self"}
    assert after["documents"]["other.json"] == before["documents"]["other.json"]


def test_there_and_back_is_what_it_was(folder: Path) -> None:
    before = contents(folder)
    amend(folder / "text/config.json", to(NEW))
    amend(folder / "text/config.json", to(OLD))
    assert contents(folder) == before


def test_a_document_without_a_manifest_is_changed_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(OLD)
    assert amend(tmp_path / "config.json", to(NEW)) == (tmp_path / "config.json",)
    assert contents(tmp_path) == {"config.json": NEW}


def test_a_manifest_that_does_not_list_it_is_left_alone(folder: Path) -> None:
    before = (folder / "mmconvert.json").read_bytes()
    (folder / "text/more.json").write_bytes(OLD)
    assert amend(folder / "text/more.json", to(NEW)) == (folder / "text/more.json",)
    assert (folder / "mmconvert.json").read_bytes() == before


def test_a_folder_without_digests_is_still_held_to_its_sizes(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", "none")
    amend(folder / "text/config.json", to(NEW))
    assert json.loads((folder / "mmconvert.json").read_bytes())["documents"]["text/config.json"]["bytes"] == len(NEW)
    (folder / "text/config.json").write_bytes(NEW * 2)
    with pytest.raises(VerificationFailed):
        amend(folder / "text/config.json", to(OLD))


def test_where_nothing_changes_nothing_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a folder that cannot be written to.
    monkeypatch.setattr(amendment, "locked", None)
    assert amend(folder / "text/config.json", to(OLD)) == ()
    (folder / "mmconvert.json").unlink()
    assert amend(folder / "text/config.json", to(OLD)) == ()


@pytest.mark.parametrize("new", [OLD, NEW, b"damaged"])
def test_what_is_damaged_is_not_signed_anew(folder: Path, new: bytes) -> None:
    (folder / "text/config.json").write_bytes(b"damaged")
    before = contents(folder)
    with pytest.raises(VerificationFailed, match=r"text/config\.json: is not what was written"):
        amend(folder / "text/config.json", to(new))
    assert contents(folder) == before


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"digest": "md5"}'])
def test_nor_is_anything_beside_a_damaged_manifest(folder: Path, data: bytes) -> None:
    (folder / "mmconvert.json").write_bytes(data)
    with pytest.raises(VerificationFailed, match=r"mmconvert\.json: is damaged"):
        amend(folder / "text/config.json", to(NEW))
    assert contents(folder) == {"text/config.json": OLD, "other.json": b"{}", "mmconvert.json": data}


def test_nor_beside_one_of_a_later_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "SCHEMA", 0)
    with pytest.raises(UsageError, match="upgrade mmconvert"):
        amend(folder / "text/config.json", to(NEW))


def longer(file: Path) -> None:
    os.truncate(file, 1 << 40)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("text/config.json", longer, "at most 4,194,304"),
        ("text/config.json", pipe, "is not a regular file"),
        ("mmconvert.json", longer, "at most 51,200,000"),
    ],
)
def test_what_is_longer_than_any_or_no_file_is_not_read(
    folder: Path, name: str, change: Callable[[Path], None], said: str
) -> None:
    change(folder / name)
    with pytest.raises(InputRefused, match=f"{name}: .*{said}"):
        amend(folder / "text/config.json", to(NEW))


def test_damage_elsewhere_stays_to_be_found(folder: Path) -> None:
    (folder / "other.json").write_bytes(b"[]")
    amend(folder / "text/config.json", to(NEW))
    assert manifest.check_folder(folder).problems == ["other.json: document: is not what was written"]


def test_modes_stay_what_they_were(folder: Path) -> None:
    (folder / "text/config.json").chmod(0o640)
    (folder / "mmconvert.json").chmod(0o604)
    amend(folder / "text/config.json", to(NEW))
    assert (folder / "text/config.json").stat().st_mode & 0o777 == 0o640
    assert (folder / "mmconvert.json").stat().st_mode & 0o777 == 0o604


def test_a_link_is_replaced_and_what_it_leads_to_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(OLD)
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/config.json").symlink_to("../blob")
    amend(tmp_path / "snapshot/config.json", to(NEW))
    assert not (tmp_path / "snapshot/config.json").is_symlink()
    assert contents(tmp_path) == {"blob": OLD, "snapshot/config.json": NEW}


def test_through_a_link_to_its_folder_the_manifest_is_found(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder / "text")
    amend(folder.parent / "link/config.json", to(NEW))
    assert manifest.check_folder(folder).problems == []


def test_two_runs_do_not_meet(folder: Path) -> None:
    with staging.locked(folder / "text/config.json"), pytest.raises(OutputRefused, match="another run"):
        amend(folder / "text/config.json", to(NEW))


@pytest.mark.parametrize("call", range(1, 5))
@pytest.mark.parametrize("name", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_after_an_error_both_are_changed_or_neither(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: int, error: BaseException
) -> None:
    calls = 0
    function = getattr(os, name)

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return function(*arguments)

    monkeypatch.setattr(os, name, failing)
    try:
        amend(folder / "text/config.json", to(NEW))
    except (DiskError, KeyboardInterrupt):
        # The last step may be what failed, and is then what the next run begins with.
        if (name, call) == ("replace", 3):
            amend(folder / "text/config.json", to(NEW))
    assert manifest.check_folder(folder).problems == []
    assert names(folder) == ALL


def killed_at_line(number: int, work: Callable[[], object]) -> bool:
    """Run `work` in a process that ends without a word at the n-th line that matters; whether it came so far."""
    files = {amendment.__file__, staging.__file__}
    child = os.fork()
    if not child:
        lines = 0

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal lines
            if frame.f_code.co_filename not in files:
                return None
            lines += event == "line"
            if lines == number:
                os._exit(9)
            return trace

        sys.settrace(trace)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_wherever_it_is_killed_the_next_run_makes_it_good(folder: Path, tmp_path: Path) -> None:
    number, states = 1, set()
    while True:
        killed = shutil.copytree(folder, tmp_path / str(number))
        if not killed_at_line(number, partial(amend, killed / "text/config.json", to(NEW))):
            break
        states.add(((killed / "text/config.json").read_bytes(), not manifest.check_folder(killed).problems))
        for then in (NEW, OLD):
            again = shutil.copytree(killed, tmp_path / "again")
            amend(again / "text/config.json", to(then))
            assert ((again / "text/config.json").read_bytes(), names(again)) == (then, ALL)
            assert manifest.check_folder(again).problems == []
            shutil.rmtree(again)
        number += 1
    # It was killed before, between and after.
    assert states == {(OLD, True), (OLD, False), (NEW, False), (NEW, True)}
