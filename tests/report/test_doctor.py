"""The drawing of a diagnosis."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmconvert.diagnosis import Diagnosis, Symptom
from mmconvert.report.doctor import diagnosis_document, draw_diagnosis


def diagnosis(*symptoms: Symptom) -> Diagnosis:
    return Diagnosis(Path("/a"), "r", "the reader", symptoms)


ERROR = Symptom("t", "error", "word " * 30, "do it")
WARNING = Symptom("w", "warning", "odd", "`mmconvert convert --src /a --to hf --out NEW` " + "word " * 30)


def test_errors_and_warnings_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    draw_diagnosis(diagnosis(ERROR, ERROR, WARNING))
    assert capsys.readouterr().out.startswith("/a, for the reader: 2 errors, 1 warning\n")
    draw_diagnosis(diagnosis(WARNING))
    assert capsys.readouterr().out.startswith("/a, for the reader: 1 warning\n")


def test_prose_is_wrapped_and_commands_are_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    draw_diagnosis(diagnosis(ERROR, WARNING))
    long = [line for line in capsys.readouterr().out.splitlines() if len(line) > 40]
    assert long == [f"  mend: {WARNING.mend}"]


def test_lines_stay_readable_on_a_wide_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    draw_diagnosis(diagnosis(ERROR))
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 120


def test_a_diagnosis_without_symptoms_is_ok() -> None:
    assert diagnosis_document(diagnosis()) == {"schema": 1, "path": "/a", "reader": "r", "ok": True, "symptoms": []}
