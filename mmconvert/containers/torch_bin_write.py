"""Laying out a torch checkpoint (`.bin`): what `torch.save` writes of a dict of plain tensors, without torch.

It is a zip file of entries that are stored as they are, all below `archive/`: `data.pkl` describes the tensors,
`data/<n>` holds the bytes of one, at a multiple of 64 so that it can be mapped. A zip file gives the CRC-32 of each
entry, in front of it and in the directory at the end; so these come last, and the layout is sealed.

Formats: PKWARE's APPNOTE 6.3, without zip64, so a file ends before 4 GiB, which is room for any projector; torch's
caffe2/serialize/inline_container.h.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmconvert.containers.layout import FileLayout, Frame, Outline, Slot
from mmconvert.containers.torch_pickle_write import state_dict
from mmconvert.errors import InputRefused

ROOT = "archive"
# That of torch, for all but what it reads whole.
ALIGNMENT = 64
# What torch calls the format of the entries, and reads before anything else.
VERSION = b"3\n"
# Where sizes and numbers of entries would no longer fit in their fields.
MAX_BYTES = (1 << 32) - 1
MAX_ENTRIES = (1 << 16) - 1
# What is read back at once to make a CRC of it.
BLOCK = 1 << 20

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_ZIP_VERSION = 20
# 1 January 1980, the first day that a zip file knows: the same tensors give the same bytes, whenever.
_DATE = 0x21
# The extra field with which torch, too, fills the room up to a multiple.
_PADDING_TAG = 0x4246


def lay_out(name: str, outlines: Sequence[Outline]) -> FileLayout:
    """A file `name` with room for `outlines`, in their order; it is whole when it has been sealed.

    Raises InputRefused for element types that torch saves in another way, and for more than a zip file of the old kind
    can hold.
    """
    entries: list[_Entry] = []
    at = 0

    def place(called: str, size: int, content: bytes | None = None) -> None:
        nonlocal at
        entry = _Entry(f"{ROOT}/{called}".encode(), at, size, content)
        entries.append(entry)
        at = entry.end

    pickled = state_dict(outlines)
    place("data.pkl", len(pickled), pickled)
    place("byteorder", len(b"little"), b"little")
    for number, outline in enumerate(outlines):
        place(f"data/{number}", outline.nbytes)
    place("version", len(VERSION), VERSION)

    archive = _Archive(tuple(entries))
    if archive.size > MAX_BYTES or len(entries) > MAX_ENTRIES:
        limits = f"less than 4 GiB and at most {MAX_ENTRIES:,} entries"
        raise InputRefused(f"{name}: a .bin file holds {limits}, not {archive.size:,} bytes in {len(entries):,}")
    tensors = [entry for entry in entries if entry.content is None]
    slots = {outline.key: Slot(entry.data, entry.size) for outline, entry in zip(outlines, tensors, strict=True)}
    return FileLayout(name, archive.size, archive.frame({}), slots, archive.seal)


@dataclass(frozen=True)
class _Entry:
    """A file in the zip file, whose header begins at `header`; it has a `content` unless that is a tensor's."""

    name: bytes
    header: int
    size: int
    content: bytes | None

    @property
    def padding(self) -> int:
        """How many bytes an extra field takes so that the data is aligned; it has four bytes, or more, or is absent."""
        missing = -(self.header + _LOCAL.size + len(self.name)) % ALIGNMENT
        return missing + ALIGNMENT if 0 < missing < 4 else missing

    @property
    def data(self) -> int:
        return self.header + _LOCAL.size + len(self.name) + self.padding

    @property
    def end(self) -> int:
        return self.data + self.size

    def local(self, crc: int) -> bytes:
        """What stands in front of the data."""
        about = (_ZIP_VERSION, 0, 0, 0, _DATE, crc, self.size, self.size, len(self.name), self.padding)
        extra = struct.pack("<2H", _PADDING_TAG, self.padding - 4) if self.padding else b""
        return _LOCAL.pack(b"PK\3\4", *about) + self.name + extra.ljust(self.padding, b"\0")

    def central(self, crc: int) -> bytes:
        """What the directory says of it."""
        about = (_ZIP_VERSION, _ZIP_VERSION, 0, 0, 0, _DATE, crc, self.size, self.size, len(self.name))
        return _CENTRAL.pack(b"PK\1\2", *about, 0, 0, 0, 0, 0, self.header) + self.name


@dataclass(frozen=True)
class _Archive:
    """All entries, in their order."""

    entries: tuple[_Entry, ...]

    @property
    def size(self) -> int:
        directory = sum(_CENTRAL.size + len(entry.name) for entry in self.entries)
        return self.entries[-1].end + directory + _END.size

    def frame(self, crcs: Mapping[bytes, int]) -> Frame:
        """Everything but the tensors, with the CRCs of these by their entries' names; zero where there is none."""
        start = self.entries[-1].end
        pieces: list[tuple[int, bytes]] = []
        directory = b""
        for entry in self.entries:
            crc = crcs.get(entry.name, 0) if entry.content is None else zlib.crc32(entry.content)
            pieces.append((entry.header, entry.local(crc) + (entry.content or b"")))
            directory += entry.central(crc)
        count = len(self.entries)
        end = _END.pack(b"PK\5\6", 0, 0, count, count, len(directory), start, 0)
        return (*pieces, (start, directory + end))

    def seal(self, fd: int) -> Frame:
        """The frame of the open file `fd`, which holds all tensors."""
        return self.frame({each.name: _crc(fd, each) for each in self.entries if each.content is None})


def _crc(fd: int, entry: _Entry) -> int:
    crc, at = 0, entry.data
    while at < entry.end:
        data = os.pread(fd, min(BLOCK, entry.end - at), at)
        assert data, "the file has its full length before anything is written to it"
        crc, at = zlib.crc32(data, crc), at + len(data)
    return crc
