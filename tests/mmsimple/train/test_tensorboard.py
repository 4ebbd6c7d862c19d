"""What TensorBoard shows of a run, read back from its event files, and runs without it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from mmsimple.train.metrics import read_metrics
from mmsimple.train.reading import read_run_file
from mmsimple.train.run import run
from mmsimple.train.tensorboard import TensorBoard
from tests.mmsimple.train.runs import write_params

Say = Callable[[str], None]


class Killed(BaseException):
    """What nobody catches."""


def train(folder: Path, say: Say = lambda text: None, **changes: Any) -> None:
    run(read_run_file(write_params(folder, **changes)), folder / "model", say=say)


def shown(folder: Path) -> dict[str, dict[int, float]]:
    """Numbers by tag and step; none may be there twice."""
    events = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0}).Reload()
    found = {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    for tag, points in found.items():
        assert len(dict(points)) == len(points), tag
    return {tag: dict(points) for tag, points in found.items()}


def test_it_shows_every_update_and_every_validation(tmp_path: Path) -> None:
    train(tmp_path, init__loop={"max_steps": 5, "eval_frequency": 4}, init__logging={"log_steps": 2})
    found, told = shown(tmp_path / "model"), list(read_metrics(tmp_path / "model"))
    updates = [each for each in told if "validation" not in each]
    for name in ("loss", "learning_rate", "gradient_norm", "parameter_norm"):
        assert found.pop(f"train/{name}") == pytest.approx({each["step"]: each[name] for each in updates}), name
    for name in ("loss", "perplexity"):
        expected = {each["step"]: each["validation"][0][name] for each in told if "validation" in each}
        assert list(expected) == [4, 5]
        assert found.pop(f"validation/{name}") == pytest.approx(expected), name
    for name in ("samples", "tokens"):
        rates = found.pop(f"train/{name}_per_second")
        assert list(rates) == [2, 4, 5]
        assert min(rates.values()) > 0
    assert not found


def test_what_a_killed_run_did_again_is_not_there_twice(tmp_path: Path) -> None:
    def say(text: str) -> None:
        if text.startswith("update 5 "):
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path, say)
    assert list(shown(tmp_path / "model")["train/loss"]) == [1, 2, 3, 4]
    # Event files are read in the order of their names, which have the second in them.
    time.sleep(1)
    train(tmp_path)
    found = shown(tmp_path / "model")
    assert list(found["train/loss"]) == list(range(1, 11))
    assert list(found["validation/loss"]) == [10]


def test_all_that_was_told_is_there_when_a_run_is_killed(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, 0, print)
    board.add(1, {"train/loss": 0.5})
    assert shown(tmp_path) == {"train/loss": {1: 0.5}}
    board.close()


def test_without_it_a_run_is_silent_and_leaves_no_event_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    said: list[str] = []
    train(tmp_path, said.append)
    assert not (tmp_path / "model" / "tensorboard").exists()
    assert not [text for text in said if "warning" in text]


def test_one_that_is_too_old_is_told_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("tensorboard")
    old.__spec__ = ModuleSpec("tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard", old)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard")
    said: list[str] = []
    train(tmp_path, said.append)
    (warning,) = [text for text in said if text.startswith("warning")]
    assert "TensorBoard logging requires TensorBoard version 1.15" in warning
    assert len(list(read_metrics(tmp_path / "model"))) == 11


def test_trouble_in_writing_is_told_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> None:
        raise OSError("no room for events")

    monkeypatch.setattr(SummaryWriter, "add_scalar", fail)
    said: list[str] = []
    train(tmp_path, said.append)
    assert len([text for text in said if "no room for events" in text]) == 1
    assert len(list(read_metrics(tmp_path / "model"))) == 11
