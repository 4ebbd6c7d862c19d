"""What a run tells programs and people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmconvert.errors import DiskError, InputRefused
from mmsimple.train import progress
from mmsimple.train.metrics import Metrics, read_metrics
from mmsimple.train.progress import Progress


def test_every_update_is_a_line(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0)
    metrics.add({"step": 1, "loss": 0.1})
    metrics.add({"step": 2, "loss": float("nan"), "gradient_norm": float("inf")})
    lines = (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == [
        {"step": 1, "loss": 0.1},
        {"step": 2, "loss": None, "gradient_norm": None},
    ]


def test_what_came_after_the_checkpoint_is_taken_away(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0)
    for step in (1, 2, 3):
        metrics.add({"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    Metrics(tmp_path, 2).add({"step": 3, "again": True})
    assert list(read_metrics(tmp_path)) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]
    Metrics(tmp_path, 0)
    assert list(read_metrics(tmp_path)) == []


def test_a_file_that_is_spoilt_or_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n\0\0\n', "utf-8")
    with pytest.raises(InputRefused, match=r"metrics\.jsonl: line 2 is no JSON"):
        Metrics(tmp_path, 1)
    with pytest.raises(DiskError, match=r"metrics\.(jsonl|new)"):
        Metrics(tmp_path / "nowhere", 0)


def test_a_line_tells_speed_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    # A run that goes on after update 50.
    shown = Progress(50, 10_000)
    values = {"step": 52, "loss": 1.23456, "learning_rate": 1e-4, "samples": 20, "tokens": 150}
    shown.add({**values, "step": 51})
    shown.add(values)
    assert shown.line(values) == (
        "update 52 of 10000  loss 1.2346  rate 1.00e-04  4.0 samples/s  30 tokens/s  13:49:00 left"
    )


def test_a_run_of_epochs_does_not_guess_and_one_without_loss_says_so() -> None:
    shown = Progress(0, None)
    values = {"step": 1, "loss": None, "learning_rate": 0.0, "samples": 1, "tokens": 0}
    shown.add(values)
    assert shown.line(values).startswith("update 1  no loss  rate 0.00e+00  ")
    assert "left" not in shown.line(values)
