"""LLaVA's annotation files: a JSON list of records, or one record a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmconvert.documents import file_size
from mmconvert.errors import InputRefused


def read_annotations(path: Path) -> list[Any]:
    """All records of a file, whatever each of them is: a line of `.jsonl` that is no JSON is None.

    Raises InputRefused for what is no list of anything.
    """
    file_size(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise InputRefused(f"{path}: cannot be read as text: {error}") from error
    if path.suffix == ".jsonl":
        # Not `splitlines`, which takes other characters for line ends too.
        return [_record(line) for line in text.split("\n") if line.strip()]
    try:
        records = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise InputRefused(f"{path}: is not valid JSON: {str(error)[:200]}") from error
    if not isinstance(records, list):
        raise InputRefused(f"{path}: must be a list of records, not {type(records).__name__}")
    return records


def _record(line: str) -> Any:
    try:
        return json.loads(line, parse_int=_integer)
    except (ValueError, RecursionError):
        return None


def _integer(digits: str) -> int | None:
    """Python reads no more than some thousand digits; no record needs so many."""
    return int(digits) if len(digits) < 1000 else None
