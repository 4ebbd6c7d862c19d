"""What a run tells programs, as lines of JSON: nothing in `metrics.jsonl` that another run would not tell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from mmconvert.errors import InputRefused
from mmconvert.staging import disk_errors, write_whole

# A line for each update, and one with `validation` for each time that the run was measured.
METRICS = "metrics.jsonl"
# A line for each that is shown to people: a clock runs otherwise each time, so this stands apart.
THROUGHPUT = "throughput.jsonl"


class Lines:
    """Appends lines of JSON, each with a `step`; where a run goes on after `step`, what came later goes."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [f"{json.dumps(each)}\n" for each in read_lines(path) if each["step"] <= step]
        write_whole(path, "".join(kept).encode())

    def add(self, values: Mapping[str, Any]) -> None:
        """Append a line; null stands for numbers that are not finite, which JSON does not have."""
        line = f"{json.dumps(_finite(values))}\n"
        with disk_errors(self.path, len(line)), self.path.open("a", encoding="utf-8") as file:
            file.write(line)


class Metrics(Lines):
    """`metrics.jsonl` in a model folder; `validated` is the last step with a validation there, 0 where none has."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(folder / METRICS, step)
        self.validated: int = max((each["step"] for each in read_metrics(folder) if "validation" in each), default=0)

    def add(self, values: Mapping[str, Any]) -> None:
        super().add(values)
        if "validation" in values:
            self.validated = values["step"]


def read_metrics(folder: Path) -> Iterator[dict[str, Any]]:
    """The metrics of a run, update by update, and where `validation` is in a line, those of its validation sets."""
    return read_lines(folder / METRICS)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of JSON; what a killed run left of one is passed over, and a file that is not there has none.

    Raises InputRefused for a line that is none, and DiskError.
    """
    with disk_errors(path, 0):
        content = path.read_bytes() if path.is_file() else b""
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        if line.endswith(b"\n"):
            try:
                values = json.loads(line)
                is_one = type(values["step"]) is int
            except (ValueError, TypeError, KeyError):
                is_one = False
            if not is_one:
                raise InputRefused(f"{path}: line {number} is no JSON with a step; remove it")
            yield values


def set_names(count: int) -> list[str]:
    """What so many validation sets are called where each is shown: `validation`, or `validation_1` and so on."""
    return ["validation"] if count == 1 else [f"validation_{number}" for number in range(1, count + 1)]


def _finite(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {name: _finite(child) for name, child in node.items()}
    if isinstance(node, list):
        return [_finite(child) for child in node]
    return None if isinstance(node, float) and not isfinite(node) else node
