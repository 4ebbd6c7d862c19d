"""Amounts of bytes, as people write and read them."""

from __future__ import annotations

import pytest

from mmconvert.errors import UsageError
from mmconvert.units import human_bytes, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("500mb", 500 * 10**6), ("2GiB", 2 << 30), ("1.5 kB", 1500), ("64", 64), ("64B", 64)],
)
def test_a_size_is_a_number_with_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "5TB", "five", "-5GB", "0", "1e400", "nan", "5G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (13.5e9, "13.5 GB")],
)
def test_bytes_are_read_in_powers_of_a_thousand(count: float, text: str) -> None:
    assert human_bytes(int(count)) == text
