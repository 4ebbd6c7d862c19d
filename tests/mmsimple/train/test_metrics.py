"""What a run tells programs and people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmconvert.errors import DiskError, InputRefused
from mmsimple.train import progress
from mmsimple.train.metrics import Metrics, read_metrics
from mmsimple.train.progress import Progress, Throughput


def test_every_update_is_a_line(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0)
    metrics.add({"step": 1, "loss": 0.1})
    metrics.add({"step": 2, "loss": float("nan"), "gradient_norm": float("inf")})
    lines = (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == [
        {"step": 1, "loss": 0.1},
        {"step": 2, "loss": None, "gradient_norm": None},
    ]


def test_a_validation_is_a_line_of_its_own_and_known_of_afterwards(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0)
    assert metrics.validated == 0
    for step in (1, 2):
        metrics.add({"step": step, "loss": 0.5})
        metrics.add({"step": step, "validation": [{"loss": float("nan"), "tokens": 0}, {"loss": 0.5, "tokens": 3}]})
    assert list(read_metrics(tmp_path))[1::2] == [
        {"step": step, "validation": [{"loss": None, "tokens": 0}, {"loss": 0.5, "tokens": 3}]} for step in (1, 2)
    ]
    assert metrics.validated == 2
    assert [Metrics(tmp_path, step).validated for step in (2, 1, 0)] == [2, 1, 0]


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
    for line in (b"[1]", b"{}", b'{"step": "1"}', b"\xff"):
        (tmp_path / "metrics.jsonl").write_bytes(line + b"\n")
        with pytest.raises(InputRefused, match="line 1 is no JSON with a step"):
            list(read_metrics(tmp_path))
    with pytest.raises(DiskError, match=r"metrics\.(jsonl|new)"):
        Metrics(tmp_path / "nowhere", 0)


def test_a_line_tells_speed_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 130.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    # A run that goes on after update 50.
    shown = Progress(50, 10_000)
    values = {"step": 52, "loss": 1.23456, "learning_rate": 1e-4, "samples": 20, "tokens": 150}
    shown.add({**values, "step": 51}, 4.0)
    shown.add(values, 6.0)
    # 10 seconds of learning in 30 of the clock's: the rest was validation, say.
    assert shown.line(values, shown.take()) == (
        "update 52 of 10000  loss 1.2346  rate 1.00e-04  4.0 samples/s  30 tokens/s  41:27:00 left"
    )


def test_throughput_is_that_since_it_was_told_before() -> None:
    shown = Progress(0, 9)
    for tokens in (10, 20, 60):
        shown.add({"samples": 2, "tokens": tokens}, 0.5)
        if tokens != 10:
            found = shown.take()
    assert found == Throughput(0.5, 2, 60)
    assert (found.samples_per_second, found.tokens_per_second) == (4, 120)


def test_an_update_without_loss_says_so() -> None:
    shown = Progress(0, 9)
    values = {"step": 1, "loss": None, "learning_rate": 0.0, "samples": 1, "tokens": 0}
    shown.add(values, 0.1)
    line = shown.line(values, shown.take())
    assert line.startswith("update 1 of 9  no loss  rate 0.00e+00  ")
