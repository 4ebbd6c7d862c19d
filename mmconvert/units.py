"""Amounts of bytes as people write and read them."""

from __future__ import annotations

from mmconvert.errors import UsageError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def human_bytes(count: int) -> str:
    """`count` bytes as people read them, in powers of a thousand: "999 B", "13.5 GB"."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} PB"


def parse_size(text: str) -> int:
    """`5GB`, `500MB`, `2GiB` or a number of bytes. Raises UsageError."""
    digits = text.strip().rstrip("bBkKmMgGiI ")
    unit = text.strip()[len(digits) :].strip().upper()
    try:
        size = int(float(digits) * _UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        raise UsageError(f"{text!r} is no size: write it like 5GB, 500MB or 2GiB") from None
    if size < 1:
        raise UsageError(f"{text!r}: a size must be positive")
    return size
