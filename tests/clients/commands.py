"""mmconvert and mmsimple by their installed commands, as a user has them."""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

# What was checked, and what is wrong with it; nothing, where it passes.
Check = tuple[str, str]
Checks = Iterator[Check]


def command(program: str, *arguments: object) -> None:
    """Raises `CalledProcessError` where it ends with another code than 0; what it had to say has been seen by then."""
    script = Path(sysconfig.get_path("scripts"), program)
    subprocess.run([str(script), *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def convert(which: str, source: Path, out: Path, *options: object) -> Path:
    """`convert("hf-to-cs", source, out)`: where it wrote."""
    command("mmconvert", which, "--src", source, "--out", out, "--quiet", *options)
    return out


def problem(faults: Iterable[str]) -> str:
    """All that is wrong in one line, cut where it says no more than before."""
    return "; ".join(faults)[:600]
