"""How the files of each kind are damaged: where their parsers look, and so that more than the outermost one does."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from mmconvert import digests, manifest
from mmconvert.errors import UsageError
from tests.trust.mutants_hdf5 import with_checksums
from tests.trust.mutations import INTEGERS, Span, hdf5_metadata, mutate_bytes, mutate_text, outside

# As much of a chunk as the headers of its first block take.
CHUNK_HEADER = 24


def safetensors(data: bytes, draw: Random) -> bytes:
    """The header, as bytes, or as a document whose new length the file says."""
    end = 8 + int.from_bytes(data[:8], "little")
    if draw.random() < 0.4:
        return mutate_bytes(data, draw, [(0, end)])
    header = mutate_text(data[8:end], draw)
    return len(header).to_bytes(8, "little") + header + data[end:]


def torch_zip(data: bytes, draw: Random) -> bytes:
    """The zip's directories and small entries, or the pickle alone in a zip that is whole."""
    if draw.random() < 0.6:
        return mutate_bytes(data, draw, _zip_aims(data))
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, mutate_bytes(content, draw) if name.endswith("data.pkl") else content)
    return packed.getvalue()


@cache
def _zip_aims(data: bytes) -> list[Span]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        held = [entry for entry in archive.infolist() if "/data/" in entry.filename]
    # Behind a header of thirty bytes there stand a name, and what aligns the data.
    begins = [(entry.header_offset + 30 + len(entry.filename), entry) for entry in held]
    return outside(((begin, begin + entry.file_size) for begin, entry in begins), len(data))


def mdl(data: bytes, draw: Random) -> bytes:
    """HDF5's structures, with or without right checksums; what the attributes say; what stands before a chunk."""
    how = draw.random()
    if how < 0.4:
        return _with_other_attributes(data, draw)
    mutant = mutate_bytes(data, draw, _hdf5_aims(data))
    return with_checksums(mutant, data) if how < 0.8 and len(mutant) == len(data) else mutant


@cache
def _hdf5_aims(data: bytes) -> list[Span]:
    with TemporaryDirectory() as place:
        path = Path(place, "intact.mdl")
        path.write_bytes(data)
        aims = hdf5_metadata(path)
    chunks = [(end, end + CHUNK_HEADER) for _, end in aims if end + CHUNK_HEADER <= len(data)]
    return [*aims, *chunks]


def _with_other_attributes(data: bytes, draw: Random) -> bytes:
    """A whole HDF5 file, in which a few attributes say something else."""
    import h5py

    with TemporaryDirectory() as place:
        path = Path(place, "mutant.mdl")
        path.write_bytes(data)
        with h5py.File(path, "r+") as file:
            for _ in range(draw.choice((1, 1, 1, 2, 4))):
                attributes = (file if draw.random() < 0.5 else file[draw.choice(list(file))]).attrs
                name = draw.choice(list(attributes) or [""])
                # HDF5 takes no NUL in a text, no integer of more than 64 bits, and nothing that is very long.
                with suppress(KeyError, OverflowError, OSError, RuntimeError, TypeError, ValueError):
                    _change(attributes, name, draw)
        return path.read_bytes()


def _change(attributes: Any, name: str, draw: Random) -> None:
    value = attributes[name]
    if draw.random() < 0.1:
        del attributes[name]
    elif isinstance(value, str) and draw.random() < 0.9:
        attributes[name] = mutate_text(value.encode(), draw).decode("utf-8", "surrogateescape")
    else:
        others = (*INTEGERS, -1, 0.5, float("nan"), float("inf"), "", "text", b"\xff", True, [1, 2], [[1], [2]])
        attributes[name] = draw.choice((*others, _empty()))


def _empty() -> Any:
    import h5py

    return h5py.Empty("<f4")


def signed_manifest(data: bytes, draw: Random) -> bytes:
    """A manifest that says something else; mostly one that was signed again, as somebody could who knows how."""
    mutant = mutate_text(data, draw)
    with suppress(KeyError, RecursionError, TypeError, UsageError, ValueError):
        document = json.loads(mutant)
        if draw.random() < 0.8:
            del document["self"]
            return manifest.render({**document, "self": digests.of(document["digest"], manifest.render(document))})
    return mutant
