"""The table of promises names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs/reference-faults.md"
ROWS = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")][1:]


def named(row: str) -> list[tuple[Path, str]]:
    """Every test that a row names, with the file linked before it."""
    held_by = row.rstrip(" |").rpartition(" | ")[2]
    found: list[tuple[Path, str]] = []
    file = PAGE
    for link, test in re.findall(r"\]\(([^)]+)\)|`(test_\w+)`", held_by):
        if link:
            file = (PAGE.parent / link).resolve()
        else:
            found.append((file, test))
    return found


def test_every_row_names_a_test() -> None:
    assert len(ROWS) == 26
    assert [row for row in ROWS if not named(row)] == []


def test_every_test_named_exists() -> None:
    pairs = [pair for row in ROWS for pair in named(row)]
    missing = [
        f"{file.name}: {test}"
        for file, test in pairs
        if not re.search(rf"^def {test}\(", file.read_text("utf-8"), re.M)
    ]
    assert missing == []
