"""safetensors files: headers in, headers out. Format: https://huggingface.co/docs/safetensors#format.

Eight bytes of header length (little-endian), a JSON header that gives each tensor's dtype, shape and byte span, then
the tensors without a gap. The reader is stricter than the safetensors library, which lets duplicate keys pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from mmconvert.containers.layout import FileLayout, Outline, Slot
from mmconvert.containers.shards import MAX_TENSORS, are_counts, check_key, check_shape, read_shards
from mmconvert.documents import LISTING_LIMITS, Limits, dump_json, file_size, parse_json
from mmconvert.dtypes import BY_CODE
from mmconvert.errors import InputRefused
from mmconvert.sources import FileSpan, TensorRef

# The safetensors library reads headers of up to 100 MB; as many tensors as are read here take some 20.
MAX_HEADER_BYTES = LISTING_LIMITS.nbytes
# An entry nests three levels, header, tensor, list, and has some ten values and four keys.
_HEADER_DEPTH = 4
_ENTRY_NODES, _ENTRY_KEYS = 10, 4
# What transformers writes, and asks for when it reads.
METADATA: Mapping[str, str] = {"format": "pt"}


def read_file(path: Path, name: str = "") -> dict[str, TensorRef]:
    """The tensors of one file in the order of its header; `name` is what their `file` says, else the file's own name.

    Only the header is read. Raises `InputRefused`, naming file and key, for every header that does not describe the
    file exactly: each byte after the header belongs to one tensor, and to one only.
    """
    header, start, end = _read_header(path)
    _check_metadata(header.pop("__metadata__", {}), path)
    tensors, spans = {}, []
    for key, entry in header.items():
        check_key(key, path)
        tensors[key] = _tensor(path, key, entry, start, name or path.name)
        spans.append((*entry["data_offsets"], key))
    _check_tiling(path, spans, end - start)
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """The `__metadata__` of one file, empty where it has none. Raises `InputRefused` as `read_file` does."""
    metadata: dict[str, str] = _read_header(path)[0].get("__metadata__", {})
    _check_metadata(metadata, path)
    return metadata


def read_index(path: Path) -> dict[str, TensorRef]:
    """The tensors of a sharded checkpoint, given its `*.safetensors.index.json`; see `shards.read_shards`."""
    return read_shards(path, read_file)


def lay_out(name: str, outlines: Sequence[Outline], metadata: Mapping[str, str] = METADATA) -> FileLayout:
    """A file `name` with room for `outlines`; tensors lie in their order, but wide element types before narrow ones.

    So every tensor is aligned to its element size without a gap, as the format asks.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    slots: dict[str, Slot] = {}
    position = 0
    for outline in sorted(outlines, key=lambda outline: -outline.dtype.itemsize):
        slots[outline.key] = Slot(position, outline.nbytes)
        header[outline.key] = {
            "dtype": outline.dtype.code,
            "shape": list(outline.shape),
            "data_offsets": [position, position + outline.nbytes],
        }
        position += outline.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    frame = len(text).to_bytes(8, "little") + text
    slots = {key: Slot(len(frame) + slot.offset, slot.nbytes) for key, slot in slots.items()}
    return FileLayout(name, len(frame) + position, ((0, frame),), slots)


def lay_out_shards(
    stem: str, outlines: Sequence[Outline], max_shard_size: int
) -> tuple[list[FileLayout], bytes | None]:
    """The files for `outlines`, and the bytes of `{stem}.safetensors.index.json` where one file is not enough.

    A shard takes tensors in the order given until the next one would bring it over `max_shard_size` bytes of tensor
    data; a tensor that is larger than that has a shard of its own. Names and index are those of transformers.
    """
    shards: list[list[Outline]] = [[]]
    room = max_shard_size
    for outline in outlines:
        if shards[-1] and outline.nbytes > room:
            shards.append([])
            room = max_shard_size
        shards[-1].append(outline)
        room -= outline.nbytes
    if len(shards) == 1:
        return [lay_out(f"{stem}.safetensors", outlines)], None
    layouts = [
        lay_out(f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors", shard)
        for number, shard in enumerate(shards, start=1)
    ]
    index = {
        "metadata": {"total_size": sum(outline.nbytes for outline in outlines)},
        "weight_map": dict(sorted((key, layout.name) for layout in layouts for key in layout.slots)),
    }
    return layouts, dump_json(index)


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header of a file, and where its tensors start and end, in bytes."""
    size = file_size(path)
    if size < 8:
        raise InputRefused(f"{path}: has {size} bytes, too few for a safetensors file")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size - 8:
                raise InputRefused(
                    f"{path}: claims a header of {length:,} bytes, in a file of {size:,}; is it truncated?"
                )
            if length > MAX_HEADER_BYTES:
                raise InputRefused(f"{path}: has a header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
            data = file.read(length)
    except OSError as error:
        raise InputRefused(f"{path}: cannot be read: {error.strerror}") from error
    if not data.startswith(b"{"):
        raise InputRefused(f"{path}: its header is not a JSON object; this is no safetensors file")
    # Every entry opens a brace. Counting them takes no time; parsing a million entries takes ten seconds.
    if data.count(b"{") > MAX_TENSORS + 2:
        raise InputRefused(f"{path}: lists more than {MAX_TENSORS:,} tensors, the most that are read")
    most = MAX_TENSORS + 2
    limits = Limits(MAX_HEADER_BYTES, _ENTRY_NODES * most, _ENTRY_KEYS * most)
    return parse_json(data, f"{path}: header", _HEADER_DEPTH, limits), 8 + length, size


def _check_metadata(metadata: object, path: Path) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InputRefused(f"{path}: __metadata__: is not a map from strings to strings")


def _tensor(path: Path, key: str, entry: object, start: int, name: str) -> TensorRef:
    """One entry of the header, consistent in itself; whether its span is free is for `_check_tiling` to see."""
    what = f"{path}: {key!r}:"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise InputRefused(f"{what} its entry must have dtype, shape and data_offsets, and nothing else")
    code, span = entry["dtype"], entry["data_offsets"]
    if not isinstance(code, str) or code not in BY_CODE:
        raise InputRefused(f"{what} its dtype {str(code)[:40]!r} is none of {', '.join(BY_CODE)}")
    shape = check_shape(entry["shape"], f"{what} its shape")
    if not are_counts(span) or len(span) != 2 or span[0] > span[1]:
        raise InputRefused(f"{what} its data_offsets are not two rising positions")
    dtype, length = BY_CODE[code], span[1] - span[0]
    if prod(shape) * dtype.itemsize != length:
        raise InputRefused(
            f"{what} {dtype} {list(shape)} does not take the {length:,} bytes that its data_offsets span"
        )
    return TensorRef(key, dtype, shape, FileSpan(path, start + span[0], length), name)


def _check_tiling(path: Path, spans: list[tuple[int, int, str]], length: int) -> None:
    """Refuse spans (begin, end, key) that leave a byte of the `length` uncovered, cover it twice, or lie past it."""
    position = 0
    for begin, end, key in sorted(spans):
        if begin != position:
            wrong = (
                "overlaps the tensor before it" if begin < position else f"follows a hole of {begin - position:,} bytes"
            )
            raise InputRefused(f"{path}: {key!r}: {wrong}")
        position = end
    if position != length:
        wrong = "is truncated: its" if position > length else "has bytes that belong to no tensor: its"
        raise InputRefused(f"{path}: {wrong} tensors take {position:,} bytes, and {length:,} follow the header")
