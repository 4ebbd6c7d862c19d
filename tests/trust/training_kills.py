"""Training runs that are killed: `python -m tests.trust.training_kills anywhere FOLDER SEED KILLS`, or `rotation FOLDER
STRIDE`.

To start a process that trains takes longer than to train. So this one has all that it takes, computes nothing, and each
run is a copy of it. What it has seen is printed as JSON; whatever is wrong ends it with an AssertionError.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image

from mmconvert import api
from mmconvert.sources import TensorRef
from mmsimple.train import checkpoint
from mmsimple.train.metrics import METRICS
from mmsimple.train.reading import read_run_file
from mmsimple.train.run import run
from tests.trust.faults import killing, watched
from tests.trust.training_runs import KEEP, good, reading_here, unfinished, write_run

# What a run imports when it comes to it.
for name in ("torch.utils.tensorboard", "torch._dynamo", "torch._inductor"):
    import_module(name)
Image.init()

STEPS = 4
# What changes the list of a folder.
LISTING = ("unlink", "remove", "rename", "replace", "rmdir")


def anywhere(folder: Path, seed: int, kills: int) -> dict[str, int]:
    """Kill runs at so many random moments, half of them by the clock, half of them at a call that writes.

    Each run that was killed is gone on with by the next one, until it is done and another one begins.
    """
    draw = Random(seed)
    length, calls = prepared(folder)
    parts = folder / "parts"
    killed = saving = done = 0
    newest = 0
    while killed < kills:
        by_clock = draw.random() < 0.5
        delay = draw.uniform(0, length) if by_clock else None
        if ran(folder, nullcontext if by_clock else partial(killing, draw.randrange(calls)), delay):
            check_end(folder)
            shutil.rmtree(parts)
            done, newest = done + 1, 0
            continue
        killed += 1
        # The lock of a checkpoint stands while it is written.
        saving += any(name.startswith(".checkpoint_") for name in unfinished(parts))
        newest = check_kept(folder, newest)
    if parts.exists():
        assert ran(folder)
        check_end(folder)
    return {"killed": killed, "saving": saving, "done": done + 1}


def rotation(folder: Path, stride: int) -> dict[str, int]:
    """Kill a run at every call, or each so many, that takes a name out of a folder or puts one there."""
    prepared(folder)
    killed = 0
    while not ran(folder, partial(killing_listing, killed * stride)):
        killed += 1
        check_kept(folder, 0)
        assert ran(folder)
        check_end(folder)
        shutil.rmtree(folder / "parts")
    check_end(folder)
    return {"killed": killed}


def prepared(folder: Path) -> tuple[float, int]:
    """Make an undisturbed run in `whole`, whose checkpoints all stay: how long it takes, and how many calls write."""
    write_run(folder, STEPS)
    calls = folder / "calls"

    @contextmanager
    def counting() -> Iterator[None]:
        names: list[str] = []
        with pytest.MonkeyPatch.context() as patch, watched(lambda number, name: names.append(name)):
            patch.setattr(checkpoint, "keep_newest", lambda *_: None)
            yield
        calls.write_text(str(len(names)))

    assert ran(folder, counting, name="whole")
    for path in checkpoint.saved(folder / "whole").values():
        assert list(map(len, tensors(api.read_state(path))))
    begun = time.monotonic()
    assert ran(folder)
    length = time.monotonic() - begun
    check_end(folder)
    shutil.rmtree(folder / "parts")
    return length, int(calls.read_text())


def ran(
    folder: Path,
    disturbance: Callable[[], AbstractContextManager[Any]] = nullcontext,
    delay: float | None = None,
    name: str = "parts",
) -> bool:
    """Whether a run came to its end; it is killed after so many seconds, or by the disturbance that it runs in."""
    number = os.fork()
    if number == 0:
        status = 1
        try:
            with disturbance():
                run(read_run_file(folder / "run.yaml"), folder / name, say=lambda text: None)
            status = 0
        finally:
            os._exit(status)
    if delay is not None:
        time.sleep(delay)
        os.kill(number, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    assert status in (0, -signal.SIGKILL), f"a run ended with status {status}"
    return status == 0


def check_kept(folder: Path, newest: int) -> int:
    """The newest checkpoint, which is not older than it was; none is damaged, none is missing that is to stay."""
    found = good(folder / "parts", folder / "whole")
    last = max(found, default=0)
    assert last >= newest, (found, newest)
    assert found == list(range(last - len(found) + 1, last + 1)), found
    assert len(found) >= min(KEEP, last), found
    return last


def check_end(folder: Path) -> None:
    """All is as it is after an undisturbed run, to the bit, and nothing else is there."""
    assert good(folder / "parts", folder / "whole") == list(range(STEPS - KEEP + 1, STEPS + 1))
    assert (folder / "parts" / METRICS).read_bytes() == (folder / "whole" / METRICS).read_bytes()
    assert unfinished(folder / "parts") == []


@contextmanager
def killing_listing(at: int) -> Iterator[None]:
    """This process is killed when it is about to make call number `at` of those in `LISTING`."""
    count = 0

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return function(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in LISTING:
            patch.setattr(os, name, wrapped(getattr(os, name)))
        yield


def tensors(node: Any) -> Iterator[bytes]:
    if isinstance(node, TensorRef):
        yield node.read()
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from tensors(child)


WAYS: dict[str, Callable[..., dict[str, int]]] = {"anywhere": anywhere, "rotation": rotation}


def main(what: str, folder: str, *numbers: str) -> None:
    torch.set_num_threads(1)
    with reading_here():
        print(json.dumps(WAYS[what](Path(folder), *map(int, numbers))))


if __name__ == "__main__":
    main(*sys.argv[1:])
