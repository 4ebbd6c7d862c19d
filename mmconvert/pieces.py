"""The pieces of a file that have digests of their own: each of its tensors, and its frame, which is all the rest."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmconvert import digests
from mmconvert.containers.layout import FileLayout
from mmconvert.progress import Progress
from mmconvert.sources import blocks

BLOCK = 1 << 20


@dataclass(frozen=True)
class Piece:
    """Some bytes of a file that have a digest of their own: `spans` of (offset, length), in rising order."""

    name: str
    spans: tuple[tuple[int, int], ...]
    digest: str


def pieces_of(tensors: Iterable[Piece], size: int, frame: str) -> list[Piece]:
    """All the pieces of a file of `size` bytes: its tensors, of one span each, and before them its frame."""
    tensors = list(tensors)
    return [Piece("header", tuple(outside((each.spans[0] for each in tensors), size)), frame), *tensors]


def damaged(path: Path, pieces: Iterable[Piece], digest: str, watcher: Progress) -> Iterator[str]:
    """A problem for each of `pieces` whose bytes in the file `path` are not those that were written."""
    buffer = memoryview(bytearray(BLOCK))
    try:
        with path.open("rb", buffering=0) as file:
            for piece in pieces:
                running = digests.new(digest)
                for offset, length in piece.spans:
                    for start, size in blocks(length, BLOCK):
                        running.update(buffer[: os.preadv(file.fileno(), [buffer[:size]], offset + start)])
                        watcher.advance(size)
                if running.hexdigest() != piece.digest:
                    yield f"{piece.name}: is not what was written"
    except OSError as error:
        yield f"cannot be read: {error.strerror}"


def frame_digest(layout: FileLayout, digest: str) -> str:
    """The digest of a file's frame as it is laid out."""
    running = digests.new(digest)
    frame = deque(layout.frame)
    for start, length in outside(((slot.offset, slot.nbytes) for slot in layout.slots.values()), layout.size):
        at, end = start, start + length
        while frame and frame[0][0] < end:
            offset, data = frame.popleft()
            running.update(bytes(offset - at))
            running.update(data)
            at = offset + len(data)
        running.update(bytes(end - at))
    return running.hexdigest()


def outside(spans: Iterable[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """What `spans` of (offset, length) leave uncovered of `size` bytes, as spans in rising order."""
    at = 0
    for offset, length in sorted(span for span in spans if span[1]):
        if offset > at:
            yield at, offset - at
        at = max(at, offset + length)
    if size > at:
        yield at, size - at
