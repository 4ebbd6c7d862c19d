"""A run that is stopped, however that is, ends where it would have ended undisturbed: to the bit."""

from __future__ import annotations

import itertools
import os
import random as python_random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsimple.train import checkpoint
from mmsimple.train.metrics import read_metrics
from mmsimple.train.reading import read_run_file
from mmsimple.train.rng import rng_state, seed_all, set_rng_state
from mmsimple.train.run import Done, run
from mmsimple.train.validation import Validation, Validator
from tests.mmsimple.train.runs import assert_equal, write_params

# Long enough to be stopped in the middle, and then often in a validation.
OFTEN = {"max_steps": 40, "eval_frequency": 2}


class Killed(BaseException):
    """What nobody catches."""


def train(params: Path, folder: Path, *, killed_after: str | None = None, **options: Any) -> Done:
    def say(text: str) -> None:
        if killed_after is not None and f"{text} ".startswith(killed_after):
            raise Killed

    return run(read_run_file(params), folder, say=say, **options)


def disturbed(params: Path, folder: Path, *stops: int) -> Path:
    """The last checkpoint of a run that is killed after these updates."""
    for stop in stops:
        with pytest.raises(Killed):
            train(params, folder, killed_after=f"update {stop} ")
    last = train(params, folder).checkpoint
    assert last is not None
    return last


def assert_told_alike(found: Path, expected: Path) -> None:
    """Every update and every validation, in their order."""
    assert (found / "metrics.jsonl").read_text("utf-8") == (expected / "metrics.jsonl").read_text("utf-8")


def undisturbed(params: Path, folder: Path) -> Path:
    last = train(params, folder).checkpoint
    assert last is not None
    return last


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stops", [(4,), (2, 8), (3, 6, 7)])
def test_a_killed_run_ends_as_an_undisturbed_one(workers: int, stops: tuple[int, ...], tmp_path: Path) -> None:
    params = write_params(tmp_path, workers, init__loop__eval_frequency=2)
    expected = undisturbed(params, tmp_path / "whole")
    found = disturbed(params, tmp_path / "parts", *stops)
    assert_equal(found, expected)
    assert_told_alike(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize(
    "changes",
    [
        {"init__loop__grad_accum_steps": 3, "init__loop__max_steps": 7},
        {"init__precision": {"enabled": True, "fp16_type": "float16"}},
        {"init__precision": {"enabled": True, "fp16_type": "bfloat16"}},
        {"init__loop": {"max_epochs": 3}},
        {"init__model__freeze": ["^image_model.image_model_list"]},
    ],
    ids=["accumulated", "float16", "bfloat16", "epochs", "frozen"],
)
def test_of_every_kind_of_run(changes: dict[str, Any], tmp_path: Path) -> None:
    params = write_params(tmp_path, **changes)
    assert_equal(disturbed(params, tmp_path / "parts", 2, 5), undisturbed(params, tmp_path / "whole"))


def test_a_validation_that_is_told_of_is_not_made_again(tmp_path: Path) -> None:
    params = write_params(tmp_path, init__loop__eval_frequency=3)
    expected = undisturbed(params, tmp_path / "whole")
    for step in (3, 9, 10):
        with pytest.raises(Killed):
            train(params, tmp_path / "parts", killed_after=f"validation at update {step}:")
    assert train(params, tmp_path / "parts").validation == ()
    assert_equal(tmp_path / "parts" / expected.name, expected)
    assert_told_alike(tmp_path / "parts", tmp_path / "whole")


def test_one_that_a_run_is_killed_in_is_made_when_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = write_params(tmp_path, init__loop__eval_frequency=3)
    expected = train(params, tmp_path / "whole")
    validate = Validator.run
    # At update 3; and of the next run, which makes up for that, at the last.
    for number in (1, 4):
        count = itertools.count(1)

        def killed(validator: Validator, count: Iterator[int] = count, number: int = number) -> tuple[Validation, ...]:
            if next(count) == number:
                raise Killed
            return validate(validator)

        monkeypatch.setattr(Validator, "run", killed)
        with pytest.raises(Killed):
            train(params, tmp_path / "parts")
    monkeypatch.undo()
    assert list(checkpoint.saved(tmp_path / "parts")) == [3, 6, 9, 10]
    assert train(params, tmp_path / "parts").validation == expected.validation
    assert_told_alike(tmp_path / "parts", tmp_path / "whole")


# 2: nothing is due; 6: a validation; 10: the last one.
@pytest.mark.parametrize("stop", [2, 6, 10])
def test_sigterm_puts_off_what_is_due_until_the_run_goes_on(stop: int, tmp_path: Path) -> None:
    params = write_params(tmp_path, init__loop__eval_frequency=3)
    expected = train(params, tmp_path / "whole")

    def say(text: str) -> None:
        if text.startswith(f"update {stop} "):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        run(read_run_file(params), tmp_path / "parts", say=say)
    assert caught.value.code == 143
    assert "validation" not in list(read_metrics(tmp_path / "parts"))[-1]
    found = train(params, tmp_path / "parts")
    assert found.validation == expected.validation
    assert found.checkpoint is not None
    assert expected.checkpoint is not None
    assert_equal(found.checkpoint, expected.checkpoint)
    assert_told_alike(tmp_path / "parts", tmp_path / "whole")


def test_who_only_trains_makes_up_for_no_validation(tmp_path: Path) -> None:
    params = write_params(tmp_path)
    for _ in range(2):
        assert train(params, tmp_path / "model", mode="train").validation == ()
    assert not [each for each in read_metrics(tmp_path / "model") if "validation" in each]
    (found,) = train(params, tmp_path / "model").validation
    assert list(read_metrics(tmp_path / "model"))[-1]["validation"][0]["loss"] == found.loss


def test_other_random_numbers_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = write_params(tmp_path)
    expected = undisturbed(params, tmp_path / "whole")
    monkeypatch.setattr("mmsimple.train.loop.set_rng_state", lambda state: seed_all(2))
    with pytest.raises(AssertionError):
        assert_equal(disturbed(params, tmp_path / "parts", 4), expected)


def test_a_run_that_goes_on_ends_at_the_same_update(tmp_path: Path) -> None:
    short, long = tmp_path / "short.yaml", write_params(tmp_path)
    short.write_text(long.read_text("utf-8").replace("max_steps: 10", "max_steps: 5"), "utf-8")
    assert train(short, tmp_path / "parts").step == 5
    found = train(long, tmp_path / "parts")
    assert (found.step, found.checkpoint) == (10, tmp_path / "parts" / "checkpoint_10.mdl")
    expected = undisturbed(long, tmp_path / "whole")
    assert found.checkpoint is not None
    assert_equal(found.checkpoint, expected)


# --- real signals ---------------------------------------------------------------------------------------------------


def started(params: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from mmsimple.cli import main; main()", "train", str(params)]
    # Sums come out otherwise with another number of threads; here they have one, see `one_thread`.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command += ["--model-dir", str(folder)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(text):
            return
    raise AssertionError(f"ended before it said {text!r}")


@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_saves_the_update_that_it_comes_in(workers: int, tmp_path: Path) -> None:
    params = write_params(tmp_path, workers, init__loop=OFTEN, init__checkpoint__steps=1000)
    expected = undisturbed(params, tmp_path / "whole")
    process = started(params, tmp_path / "parts")
    wait_for(process, "update 4 ")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    (step,) = checkpoint.saved(tmp_path / "parts")
    assert 4 <= step < 40
    assert f"stopped at update {step}, which is saved" in said
    assert_equal(undisturbed(params, tmp_path / "parts"), expected)
    assert_told_alike(tmp_path / "parts", tmp_path / "whole")


def test_a_whole_group_of_processes_may_be_asked(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"init__loop": {"max_steps": 300, "grad_accum_steps": 8}, "init__checkpoint__steps": 1000}
    process = started(write_params(tmp_path, 2, **changes), tmp_path / "parts")
    wait_for(process, "update 3 ")
    os.killpg(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert list(checkpoint.saved(tmp_path / "parts"))


# tests/trust/ kills many more, which have no workers.
def test_sigkill_leaves_nothing_half_written(tmp_path: Path) -> None:
    params = write_params(tmp_path, 2, init__loop=OFTEN, init__checkpoint__steps=1)
    expected = undisturbed(params, tmp_path / "whole")
    process = started(params, tmp_path / "parts")
    wait_for(process, "update ")
    time.sleep(0.1)
    process.kill()
    process.communicate(timeout=60)
    for path in checkpoint.saved(tmp_path / "parts").values():
        checkpoint.load_state(path)
    assert_equal(undisturbed(params, tmp_path / "parts"), expected)
    assert_told_alike(tmp_path / "parts", tmp_path / "whole")


# --- random numbers -------------------------------------------------------------------------------------------------


def test_random_numbers_go_on_where_they_were() -> None:
    def draw() -> tuple[Any, ...]:
        return python_random.random(), python_random.gauss(0, 1), float(np.random.randn()), float(torch.rand(()))

    seed_all(5)
    draw()
    state = rng_state()
    expected = draw()
    assert draw() != expected
    set_rng_state(state)
    assert draw() == expected
    seed_all(5)
    assert draw() != expected


def test_a_seed_seeds_all_three() -> None:
    seed_all(7)
    first = (python_random.random(), float(np.random.rand()), float(torch.rand(())))
    seed_all(7)
    assert (python_random.random(), float(np.random.rand()), float(torch.rand(()))) == first
