"""Work that is shared out among processes, with results in the order of the work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar

from mmconvert.errors import UsageError
from mmsimple.threads import silent

T = TypeVar("T")
# How torch begins to tell that a process of a DataLoader has died.
TORCHS_WORDS = "DataLoader worker"
KILLED = "a worker process was killed, for want of memory perhaps: try fewer workers"
# The name of multiprocessing's threads that send what is put into a queue.
FEEDER = "QueueFeederThread"
# Pieces of work for each process that are sent ahead: enough for it not to wait.
AHEAD = 2

_worker: Callable[..., Any] | None = None


class WorkerDied(UsageError):
    """A process that worked for this one was killed: more of them were asked for than the machine bears, mostly."""


@contextmanager
def worker_errors() -> Iterator[None]:
    """Tell in a line of a process that has died, of those of `in_order` or of a loader's.

    Of the latter torch raises RuntimeError out of a signal's handler: wherever this process stands, not where it waits.
    Where nothing can be raised, such as in a destructor, Python would print it; torch raises it again.
    """
    before = sys.unraisablehook

    def tell(args: sys.UnraisableHookArgs) -> None:
        if not is_of_worker(args.exc_value):
            before(args)

    sys.unraisablehook = tell
    try:
        yield
    except RuntimeError as error:
        if is_of_worker(error):
            raise WorkerDied(KILLED) from error
        raise
    finally:
        sys.unraisablehook = before


def is_of_worker(error: BaseException | None) -> bool:
    """Whether it tells of a process that has died."""
    return isinstance(error, BrokenProcessPool) or (
        isinstance(error, RuntimeError) and str(error).startswith(TORCHS_WORDS)
    )


def in_order(
    make: Callable[..., Callable[..., T]], given: tuple[Any, ...], work: Iterable[tuple[Any, ...]], workers: int
) -> Iterator[T]:
    """The results of `make(*given)(*piece)` for each piece of work; every process makes its own worker, once.

    Raises what a worker raises, and for one that was killed what `worker_errors` tells of.
    """
    if workers < 2:
        worker = make(*given)
        for piece in work:
            yield worker(*piece)
        return
    # Spawned: a fork would inherit threads of torch's and tokenizers' that stand still in it.
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future[T]] = deque()
    # Where a process was killed, the thread that feeds them may fail as well.
    with (
        silent(lambda thread: thread.name == FEEDER),
        ProcessPoolExecutor(workers, context, _begin, (make, given)) as pool,
    ):
        try:
            for piece in work:
                waiting.append(pool.submit(_do, *piece))
                if len(waiting) > workers * AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # What is being done is waited for, and nothing else. By the pool, whose own thread may be at the same.
            pool.shutdown(cancel_futures=True)


def _begin(make: Callable[..., Callable[..., Any]], given: tuple[Any, ...]) -> None:
    global _worker
    # Ctrl-C reaches all processes of a terminal; ours end when the one that started them ends them, or is gone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    _worker = make(*given)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(*piece: Any) -> Any:
    assert _worker is not None
    return _worker(*piece)
