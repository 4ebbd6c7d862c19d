"""What is written into the file in memory is there, takes the room of its pages, and stands around the tensors."""

from __future__ import annotations

import os

from mmconvert.containers.layout import Slot
from mmconvert.containers.mdl_pages import Pages, frame

PAGE = Pages.PAGE


def written(*pieces: tuple[int, bytes]) -> Pages:
    pages = Pages()
    for offset, data in pieces:
        pages.seek(offset)
        assert pages.write(data) == len(data)
    return pages


def test_bytes_come_back_across_pages_and_zeros_where_nothing_was_written() -> None:
    pages = written((PAGE - 2, b"abcd"))
    assert pages.read(PAGE - 4, 10) == b"\0\0abcd\0\0\0\0"
    buffer = bytearray(3)
    pages.seek(-3, os.SEEK_END)
    assert pages.readinto(buffer) == 3
    assert (bytes(buffer), pages.tell(), pages.size) == (b"bcd", PAGE + 2, PAGE + 2)


def test_a_terabyte_of_nothing_takes_no_room() -> None:
    pages = written((1 << 40, b"end"))
    assert (pages.size, len(pages._pages)) == ((1 << 40) + 3, 1)
    assert pages.truncate(5) == pages.size == 5


def test_the_frame_is_what_stands_around_the_tensors_less_what_is_zero() -> None:
    pages = written((0, b"head"), (100, b"tail"))
    assert list(frame(pages, [Slot(8, 10), Slot(20, 80), Slot(0, 0)])) == [(0, b"head\0\0\0\0"), (100, b"tail")]
