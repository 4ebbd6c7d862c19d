"""What was tried, added up at the end of a run: `make trust` shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

Tell = Callable[[str, int], None]
PROPERTY = "trust"


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """`tell("conversions killed", 100)`, once the test has seen that all went as it should."""
    return lambda what, count: record_property(PROPERTY, [what, count])


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
