"""What examining a checkpoint gave, for scripts and for people."""

from __future__ import annotations

from collections.abc import Iterator
from shutil import get_terminal_size
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from mmconvert.report.reporter import SCHEMA

if TYPE_CHECKING:
    from mmconvert.diagnosis import Diagnosis

# Lines that are longer are hard to read.
WIDEST = 120


def diagnosis_document(found: Diagnosis) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "path": str(found.path),
        "reader": found.reader,
        "ok": found.ok,
        "symptoms": [
            {"trap": each.trap, "severity": each.severity, "what": each.what, "mend": each.mend}
            for each in found.symptoms
        ],
    }


def draw_diagnosis(found: Diagnosis) -> None:
    width = min(get_terminal_size().columns, WIDEST)
    print(*_wrapped(f"{found.path}, for {found.title}: {_verdict(found)}", width, ""), sep="\n")
    for each in found.symptoms:
        print()
        print(f"{each.severity}: {each.trap}")
        print(*_wrapped(each.what, width, "  "), sep="\n")
        # A command must survive being copied.
        mend = f"mend: {each.mend}"
        print(*([f"  {mend}"] if "`" in mend else _wrapped(mend, width, "  ")), sep="\n")


def _verdict(found: Diagnosis) -> str:
    errors = len(found.errors)
    warnings = len(found.symptoms) - errors
    if not found.symptoms:
        return "nothing is wrong with it, as far as headers tell"
    counts = [f"{count} {word}{'s' if count > 1 else ''}" for count, word in ((errors, "error"), (warnings, "warning"))]
    return ", ".join(each for each in counts if not each.startswith("0"))


def _wrapped(text: str, width: int, indent: str) -> Iterator[str]:
    """Lines of at most so many columns; a path or a name is never broken."""
    yield from wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
