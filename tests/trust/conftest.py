"""What was tried, added up at the end of a run: `make trust` shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Make
from tests.trust.conversions import Conversion, conversion

Tell = Callable[[str, int], None]
MakeConversion = Callable[[str, Path], Conversion]
PROPERTY = "trust"


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """`tell("conversions killed", 100)`, once the test has seen that all went as it should."""
    return lambda what, count: record_property(PROPERTY, [what, count])


@pytest.fixture(scope="session")
def make_conversion(make_llama: Make, make_clip: Make, make_llava: Make) -> MakeConversion:
    """`make_conversion(name, folder)`: one of `conversions.FORMATS`, see there."""
    return lambda name, folder: conversion(name, folder, make_llama, make_clip, make_llava)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    told: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == PROPERTY:
                told[value[0]] += value[1]
    failed = len(terminalreporter.getreports("failed")) + len(terminalreporter.getreports("error"))
    if told:
        terminalreporter.section("trust")
        for what, count in told.items():
            terminalreporter.write_line(f"{count:>7,}  {what}")
        terminalreporter.write_line(f"{failed:>7,}  tests failed")
