"""CS releases, compared as pairs of integers: 2.10 comes after 2.9."""

from __future__ import annotations

import re
from typing import NamedTuple


class Release(NamedTuple):
    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @staticmethod
    def parse(text: str) -> Release:
        """`2.10`, `cs-2.10` or `2.10.0`. Raises ValueError for anything else."""
        match = re.fullmatch(r"(?:cs-)?(\d{1,3})\.(\d{1,3})(?:\.\w+)*", text)
        if match is None:
            raise ValueError(f"{text!r} is no release: write it like 2.10")
        return Release(int(match[1]), int(match[2]))


OLDEST, NEWEST = Release(1, 9), Release(2, 10)
# From here on a params file is one tree under `trainer`.
TRAINER = Release(2, 3)


def span(first: str, last: str) -> tuple[Release, ...]:
    """All releases from `first` to `last` of one major version."""
    low, high = Release.parse(first), Release.parse(last)
    return tuple(Release(low.major, minor) for minor in range(low.minor, high.minor + 1))
