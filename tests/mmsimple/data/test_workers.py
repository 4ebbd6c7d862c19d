"""Work among processes. What makes a worker must be found by name in another process; `functools.partial` is."""

from __future__ import annotations

import os
import sys
from functools import partial
from operator import add, mul
from pathlib import Path

import pytest

from mmconvert.documents import file_size
from mmconvert.errors import InputRefused
from mmsimple.data.workers import WorkerDied, in_order, worker_errors


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_work(workers: int) -> None:
    work = [(number,) for number in range(20)]
    assert list(in_order(partial, (mul, 3), work, workers)) == [3 * number for number in range(20)]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_worker_raises_is_raised(workers: int, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        list(in_order(partial, (add, 1), [("x",)], workers))
    with pytest.raises(InputRefused, match="none: cannot be read"):
        list(in_order(partial, (file_size,), [(tmp_path / "none",)], workers))


def test_a_worker_that_is_killed_is_told_of() -> None:
    with pytest.raises(WorkerDied, match="a worker process was killed"), worker_errors():
        list(in_order(partial, (os._exit,), [(1,)], 2))


def test_work_is_taken_no_faster_than_results_are() -> None:
    taken: list[int] = []

    def work() -> object:
        for number in range(100):
            taken.append(number)
            yield (number,)

    results = in_order(partial, (mul, 2), work(), 2)  # type: ignore[arg-type]
    assert next(results) == 0
    assert len(taken) < 10
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("said", "is_told"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", True),
        ("DataLoader worker (pid(s) 7) exited unexpectedly", True),
        ("CUDA error: out of memory", False),
    ],
)
def test_so_is_one_of_a_loader_and_nothing_else(said: str, is_told: bool) -> None:
    with pytest.raises(WorkerDied if is_told else RuntimeError) as caught, worker_errors():
        raise RuntimeError(said)
    assert (type(caught.value) is RuntimeError) != is_told


def test_where_nothing_can_be_raised_it_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(str(args.exc_value)))

    class Held:
        def __init__(self, said: str) -> None:
            self.said = said

        def __del__(self) -> None:
            raise RuntimeError(self.said)

    killed = "DataLoader worker (pid 7) is killed by signal: Killed. "
    with worker_errors():
        Held(killed)
        Held("something else")
    Held(killed)
    assert told == ["something else", killed]
