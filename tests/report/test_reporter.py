"""Results on stdout, everything else on stderr; the log file hears what is said and what is kept quiet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmconvert.report import Reporter, table


def speak(reporter: Reporter) -> None:
    reporter.note("a note")
    reporter.detail("a detail")
    reporter.warn("a warning")
    reporter.error("an error")


@pytest.mark.parametrize(
    ("quiet", "verbose", "expected"),
    [
        (False, False, ["a note", "warning: a warning", "error: an error"]),
        (False, True, ["a note", "a detail", "warning: a warning", "error: an error"]),
        (True, False, ["warning: a warning", "error: an error"]),
    ],
)
def test_how_much_is_said(capsys: pytest.CaptureFixture[str], quiet: bool, verbose: bool, expected: list[str]) -> None:
    speak(Reporter(quiet=quiet, verbose=verbose))
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == ("", expected)


def test_the_log_file_hears_everything_and_is_added_to(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    speak(Reporter(quiet=True, log_file=log))
    assert log.read_text().splitlines() == ["before", "a note", "a detail", "warning: a warning", "error: an error"]


def test_a_result_is_a_document_or_a_drawing(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter(as_json=True).result({"ä": 1}, lambda: print("drawn"))
    assert json.loads(capsys.readouterr().out) == {"ä": 1}
    Reporter().result({}, lambda: print("drawn"))
    assert capsys.readouterr().out == "drawn\n"
    Reporter(quiet=True).result({}, lambda: print("drawn"))
    assert capsys.readouterr().out == "drawn\n"
    Reporter(quiet=True).summary({}, lambda: print("drawn"))
    assert capsys.readouterr().out == ""


def test_a_table_is_plain_text_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table("", ("key", "how"), [("x" * 150, "[bold]not markup[/bold]")])
    header, _, row = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == ["key", "how"]
    assert row == ["x" * 150, "[bold]not", "markup[/bold]"]


def test_without_a_terminal_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter().progress("copying") as progress:
        assert progress is None
    assert capsys.readouterr().err == ""


def test_a_log_on_a_full_disk_is_given_up_and_the_work_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no such device here")
    speak(Reporter(log_file=full))
    told = "warning: --log-file /dev/full: No space left on device; nothing more is written there"
    assert capsys.readouterr().err.splitlines() == ["a note", told, "warning: a warning", "error: an error"]
