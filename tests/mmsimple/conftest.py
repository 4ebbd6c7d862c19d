"""What all tests of mmsimple have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from mmsimple.cli import main
from mmsimple.data import h5_guard
from mmsimple.data.h5_child import finding

if TYPE_CHECKING:
    from tests.conftest import Run


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are done before a second thread has begun."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def looked_at_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training files are looked at as they always are, but in this process: to start another one for each test takes
    longer than most of them.
    """

    def ask(paths: Iterable[Path], seconds: int) -> Iterator[str | None]:
        return map(finding, paths)

    monkeypatch.setattr(h5_guard, "ask", ask)


@pytest.fixture
def mmsimple(in_process: Callable[..., Run]) -> Run:
    """`mmsimple("validate", path)`: the command line in this process."""
    return in_process(main, "mmsimple")
