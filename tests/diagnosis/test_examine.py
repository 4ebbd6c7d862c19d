"""Examining a folder: the reader is found, its traps are looked for in order, and what cannot be read is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from mmconvert import diagnosis
from mmconvert.diagnosis import Look, Patient, Reader, Trap, error, every, examine, warning
from mmconvert.errors import InputRefused, UsageError


def sees(*what: str) -> Look[Patient]:
    return lambda patient: what


def reads_config(patient: Patient) -> Iterable[str]:
    return [] if patient.config else ["no config"]


def reader(name: str, *traps: Trap[Patient], claims: bool = True) -> Reader[Patient]:
    return Reader(name, f"the reader {name}", lambda patient: claims, lambda patient: patient, traps)


Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes these the only readers."""
    return lambda *readers: monkeypatch.setattr(diagnosis, "readers", lambda: readers)


def test_what_is_seen_comes_with_its_reason_and_its_cure(install: Install, tmp_path: Path) -> None:
    install(reader("r", error("t", sees("x is 1"), why="it fails", mend="set x to 2")))
    found = examine(tmp_path)
    assert (found.path, found.reader, found.title, found.ok) == (tmp_path, "r", "the reader r", False)
    assert found.symptoms == (diagnosis.Symptom("t", "error", "x is 1; it fails", "set x to 2"),)


def test_a_trap_may_be_found_in_several_places(install: Install, tmp_path: Path) -> None:
    look = every(lambda patient: ("a", "b"), lambda part: [f"{part} is wrong"])
    install(reader("r", error("t", look, why="it fails", mend="-")))
    assert [each.what for each in examine(tmp_path).symptoms] == ["a is wrong; it fails", "b is wrong; it fails"]


def test_errors_come_before_warnings(install: Install, tmp_path: Path) -> None:
    first, second = warning("w", sees("y"), why="-", mend="-"), error("e", sees("x"), why="-", mend="-")
    install(reader("r", first, second))
    assert [each.trap for each in examine(tmp_path).symptoms] == ["e", "w"]


def test_warnings_alone_are_no_reason_to_refuse(install: Install, tmp_path: Path) -> None:
    install(reader("r", warning("w", sees("y"), why="-", mend="-")))
    assert examine(tmp_path).ok


def test_after_a_decisive_trap_no_other_is_looked_for(install: Install, tmp_path: Path) -> None:
    decisive = error("d", sees("x"), why="-", mend="-", decisive=True)
    install(reader("r", decisive, error("t", sees("y"), why="-", mend="-")))
    assert [each.trap for each in examine(tmp_path).symptoms] == ["d"]


def test_a_decisive_trap_that_is_not_found_decides_nothing(install: Install, tmp_path: Path) -> None:
    install(reader("r", error("d", sees(), why="-", mend="-", decisive=True), error("t", sees("y"), why="-", mend="-")))
    assert [each.trap for each in examine(tmp_path).symptoms] == ["t"]


def test_a_command_names_the_folder_as_a_shell_needs_it(install: Install, tmp_path: Path) -> None:
    folder = tmp_path / "two words"
    folder.mkdir()
    install(reader("r", error("t", sees("x"), why="-", mend="`mmconvert inspect {path}`")))
    assert examine(folder).symptoms[0].mend == f"`mmconvert inspect '{folder}'`"


def test_what_cannot_be_read_is_an_error_and_hides_nothing(install: Install, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    install(reader("r", error("t", reads_config, why="-", mend="-"), error("u", reads_config, why="-", mend="-")))
    assert [each.trap for each in examine(tmp_path).symptoms] == ["unreadable", "t", "u"]


def test_a_reader_is_taken_by_its_name(install: Install, tmp_path: Path) -> None:
    install(reader("a"), reader("b", claims=False))
    assert examine(tmp_path, "b").reader == "b"
    with pytest.raises(UsageError, match=r"no reader is called 'c'; known: a, b"):
        examine(tmp_path, "c")


def test_a_reader_follows_from_what_the_folder_is(install: Install, tmp_path: Path) -> None:
    install(reader("a", claims=False), reader("b"))
    assert examine(tmp_path).reader == "b"


def test_a_folder_that_no_reader_claims_needs_one_named(install: Install, tmp_path: Path) -> None:
    install(reader("a", claims=False), reader("b", claims=False))
    with pytest.raises(InputRefused, match=r"no checkpoint is recognised here; say with --for .*: a, b"):
        examine(tmp_path)


def test_a_folder_that_two_readers_claim_needs_one_named(install: Install, tmp_path: Path) -> None:
    install(reader("a"), reader("b"))
    with pytest.raises(UsageError, match="may be for a, b; say which with --for"):
        examine(tmp_path)


def test_a_path_that_is_no_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        examine(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file; name the folder"):
        examine(tmp_path / "file")


def test_a_hub_cache_folder_is_examined_at_its_snapshot(install: Install, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    install(reader("r", error("t", lambda patient: [str(patient.path)], why="-", mend="{path}")))
    (symptom,) = examine(tmp_path / "models--a--b").symptoms
    assert symptom.what == f"{snapshot}; -"
    assert symptom.mend == str(tmp_path / "models--a--b")
