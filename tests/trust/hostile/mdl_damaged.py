"""`.mdl` files whose bytes are damaged, or are not what the filters around them say."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.trust.hostile.case import CONVERT_CS, Case, Cases, Place
from tests.trust.hostile.mdl import FILE, KEY, NAMED, Edit, edited, stored

WHAT = ".mdl, damaged"
GOLDEN = Path(__file__).parents[2] / "golden" / "mdl"
GZIP, LZ4 = 1, 32004


def raw(change: Callable[[bytes], bytes]) -> Callable[[Place], None]:
    def build(place: Place) -> None:
        file = place.copy("mdl") / FILE
        file.write_bytes(change(file.read_bytes()))

    return build


def chunked(data: bytes, filters: int, options: tuple[int, ...] = ()) -> Edit:
    """The final norm is one chunk of these bytes, which a filter is said to undo."""

    def change(file: h5py.File, place: Place) -> None:
        del file[KEY]
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((48,))
        created.set_filter(filters, h5py.h5z.FLAG_OPTIONAL, options)
        space = h5py.h5s.create_simple((48,))
        dataset = h5py.h5d.create(file.id, KEY.encode(), h5py.h5t.STD_I16LE, space, created)
        dataset.write_direct_chunk((0,), data)

    return change


def many_chunks(file: h5py.File, place: Place) -> None:
    """A tensor in chunks of one number."""
    del file[KEY]
    file.create_dataset(KEY, data=np.zeros(200_000, "<i2"), chunks=(1,))


def lz4(total: int, block: int, *blocks: bytes) -> bytes:
    return struct.pack(">QI", total, block) + b"".join(struct.pack(">I", len(each)) + each for each in blocks)


def hanging(place: Place) -> None:
    """A file of 8 kB that HDF5 1.14 and 2.0 never come to the end of; found by trying."""
    damaged = bytearray((GOLDEN / "plain_minimal.mdl").read_bytes())
    damaged[2816] = damaged[3699] = 0xFF
    (place.copy("mdl") / FILE).write_bytes(damaged)


def user_block(place: Place) -> None:
    file = place.copy("mdl") / FILE
    whole = file.read_bytes()
    file.write_bytes(b"#!/bin/sh\ntouch marker\n".ljust(512, b"\n") + whole)


def a_pipe(place: Place) -> None:
    (place.copy("mdl") / FILE).unlink()
    os.mkfifo(place.source / FILE)


def overwritten(offset: int, data: bytes) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:offset] + data + whole[offset + len(data) :]


CASES: Cases = {
    name: Case(build, words, CONVERT_CS)
    for name, (build, words) in {
        "a leaf in chunks of one number": (edited(many_chunks), [FILE, NAMED, "described as [48]"]),
        "a filter that nobody knows": (edited(chunked(bytes(96), 32999)), [FILE, NAMED, "only LZ4"]),
        "chunks that HDF5 would shuffle": (
            edited(stored(data=np.zeros(48, "<i2"), shuffle=True)),
            [FILE, NAMED, "only LZ4"],
        ),
        "LZ4 that promises an exabyte": (
            edited(chunked(lz4(1 << 60, 1 << 30, bytes(96)), LZ4)),
            [FILE, NAMED, "promises"],
        ),
        "LZ4 of blocks of no size": (edited(chunked(lz4(96, 0, bytes(96)), LZ4)), [FILE, NAMED, "promises"]),
        "LZ4 whose block reaches over the end": (
            edited(chunked(struct.pack(">QII", 96, 96, 1 << 30) + bytes(96), LZ4)),
            [FILE, NAMED, "reaches over its end"],
        ),
        "LZ4 that is none": (edited(chunked(lz4(96, 96, b"\xff" * 40), LZ4)), [FILE, NAMED, "is damaged"]),
        "LZ4 that ends early": (edited(chunked(struct.pack(">QI", 96, 48), LZ4)), [FILE, NAMED, "is damaged"]),
        "a gzip bomb": (edited(chunked(zlib.compress(bytes(200_000_000)), GZIP, (4,))), [FILE, NAMED, "is damaged"]),
        "a user block": (user_block, [FILE, "not an HDF5 file, or has a user block"]),
        "a file cut in half": (raw(lambda whole: whole[: len(whole) // 2]), [FILE, "truncated"]),
        "a file cut after its first bytes": (raw(lambda whole: whole[:8]), [FILE, "cannot be read"]),
        "a file of no HDF5": (raw(lambda whole: b"PK\3\4" + whole), [FILE, "not an HDF5 file"]),
        "a file that hangs HDF5": (hanging, [FILE]),
        "a file whose root lies nowhere": (raw(overwritten(36, b"\xff" * 8)), [FILE]),
        "a pipe": (a_pipe, [FILE]),
    }.items()
}

# The cases of every run of the tests; the others are for `make trust`.
USUAL = (
    "a filter that nobody knows",
    "LZ4 that promises an exabyte",
    "LZ4 that is none",
    "a user block",
    "a file cut in half",
    "a file that hangs HDF5",
)
