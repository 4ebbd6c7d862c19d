"""What all tests of mmsimple have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
import torch

from mmsimple.cli import main

if TYPE_CHECKING:
    from tests.conftest import Run


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are done before a second thread has begun."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def mmsimple(in_process: Callable[..., Run]) -> Run:
    """`mmsimple("validate", path)`: the command line in this process."""
    return in_process(main, "mmsimple")
