"""What a run tells programs: a line of JSON for every update, and nothing in it that another run would not tell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from mmconvert.errors import InputRefused
from mmconvert.staging import disk_errors, write_whole

FILE = "metrics.jsonl"


class Metrics:
    """Appends to `metrics.jsonl` in a model folder; where a run goes on after `step`, what came later goes."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / FILE
        kept = [f"{json.dumps(each)}\n" for each in read_metrics(folder) if each["step"] <= step]
        write_whole(self.path, "".join(kept).encode())

    def add(self, values: Mapping[str, Any]) -> None:
        """Append a line; null stands for numbers that are not finite, which JSON does not have."""
        finite = {
            name: None if isinstance(value, float) and not isfinite(value) else value for name, value in values.items()
        }
        line = f"{json.dumps(finite)}\n"
        with disk_errors(self.path, len(line)), self.path.open("a", encoding="utf-8") as file:
            file.write(line)


def read_metrics(folder: Path) -> Iterator[dict[str, Any]]:
    """The metrics of a run; what a killed one left of a line is passed over."""
    path = folder / FILE
    text = path.read_text("utf-8") if path.is_file() else ""
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if line.endswith("\n"):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise InputRefused(f"{path}: line {number} is no JSON; remove it") from error
