"""safetensors: the library reads what is laid out here, its files are read here, and every lying header is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

from mmconvert.containers import safetensors
from mmconvert.containers.layout import FileLayout, Outline
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused

OUTLINES = [
    Outline("flags", BY_NAME["bool"], (3,)),
    Outline("half", BY_NAME["float16"], (5,)),
    Outline("wide", BY_NAME["float64"], (2, 2)),
    Outline("empty", BY_NAME["float32"], (0, 4)),
    Outline("scalar", BY_NAME["float32"], ()),
    Outline("half.too", BY_NAME["float16"], (1, 3)),
]


def raw(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(*offsets: Any, dtype: Any = "U8", shape: Any = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [offsets[1] - offsets[0]] if shape is None else shape, "data_offsets": offsets}


def write(layout: FileLayout, folder: Path, contents: dict[str, bytes]) -> Path:
    data = bytearray(layout.size)
    for offset, frame in layout.frame:
        data[offset : offset + len(frame)] = frame
    for key, slot in layout.slots.items():
        data[slot.offset : slot.offset + slot.nbytes] = contents[key]
    (folder / layout.name).write_bytes(data)
    return folder / layout.name


def contents_of(outlines: list[Outline]) -> dict[str, bytes]:
    return {outline.key: bytes((i + j) % 2 for j in range(outline.nbytes)) for i, outline in enumerate(outlines)}


def test_the_metadata_of_a_file_is_read_by_itself(tmp_path: Path) -> None:
    save_file({"a": np.zeros(3)}, tmp_path / "with.safetensors", {"format": "pt"})
    save_file({"a": np.zeros(3)}, tmp_path / "without.safetensors")
    assert safetensors.read_metadata(tmp_path / "with.safetensors") == {"format": "pt"}
    assert safetensors.read_metadata(tmp_path / "without.safetensors") == {}


def test_metadata_that_is_no_map_of_strings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(raw({"__metadata__": {"format": 1}}))
    with pytest.raises(InputRefused, match="__metadata__"):
        safetensors.read_metadata(tmp_path / "a.safetensors")


def test_the_library_reads_what_is_laid_out(tmp_path: Path) -> None:
    contents = contents_of(OUTLINES)
    loaded = load_file(write(safetensors.lay_out("a.safetensors", OUTLINES), tmp_path, contents))
    assert loaded.keys() == contents.keys()
    for outline in OUTLINES:
        array = loaded[outline.key]
        assert (array.dtype.name, array.shape) == (outline.dtype.name, outline.shape)
        assert array.tobytes() == contents[outline.key]


def test_what_is_laid_out_is_read_back_here(tmp_path: Path) -> None:
    contents = contents_of(OUTLINES)
    tensors = safetensors.read_file(write(safetensors.lay_out("a.safetensors", OUTLINES), tmp_path, contents))
    assert {key: tensor.read() for key, tensor in tensors.items()} == contents
    assert {tensor.file for tensor in tensors.values()} == {"a.safetensors"}


def test_a_layout_is_aligned_has_no_holes_and_keeps_the_order_among_equals() -> None:
    layout = safetensors.lay_out("a.safetensors", OUTLINES)
    assert list(layout.slots) == ["wide", "empty", "scalar", "half", "half.too", "flags"]
    ((start, frame),) = layout.frame
    assert (start, len(frame) % 8) == (0, 0)
    position = len(frame)
    for outline in sorted(OUTLINES, key=lambda outline: list(layout.slots).index(outline.key)):
        slot = layout.slots[outline.key]
        assert (slot.offset, slot.nbytes, slot.offset % outline.dtype.itemsize) == (position, outline.nbytes, 0)
        position += slot.nbytes
    assert position == layout.size


def test_a_header_is_these_very_bytes() -> None:
    layout = safetensors.lay_out("a.safetensors", [Outline("é", BY_NAME["bfloat16"], (2, 3))])
    text = '{"__metadata__":{"format":"pt"},"é":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}'.encode()
    padded = text + b" " * (-len(text) % 8)
    assert layout.frame == ((0, len(padded).to_bytes(8, "little") + padded),)


def test_a_file_without_metadata_has_none() -> None:
    ((_, frame),) = safetensors.lay_out("a.safetensors", [], metadata={}).frame
    assert frame[8:] == b"{}      "


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 60))
def test_shards_keep_to_their_size_and_lose_nothing(sizes: list[int], limit: int) -> None:
    outlines = [Outline(f"t{i}", BY_NAME["uint8"], (size,)) for i, size in enumerate(sizes)]
    layouts, index = safetensors.lay_out_shards("model", outlines, limit)
    assert [key for layout in layouts for key in layout.slots] == [outline.key for outline in outlines]
    for layout in layouts:
        assert sum(slot.nbytes for slot in layout.slots.values()) <= limit or len(layout.slots) == 1
    if len(layouts) == 1:
        assert (layouts[0].name, index) == ("model.safetensors", None)
    else:
        assert index is not None
        document = json.loads(index)
        assert document["metadata"] == {"total_size": sum(sizes)}
        assert document["weight_map"] == {key: layout.name for layout in layouts for key in layout.slots}
        assert list(document["weight_map"]) == sorted(document["weight_map"])
        assert layouts[-1].name == f"model-{len(layouts):05d}-of-{len(layouts):05d}.safetensors"


def test_a_tensor_over_the_limit_has_a_shard_of_its_own() -> None:
    outlines = [Outline(key, BY_NAME["uint8"], (size,)) for key, size in [("a", 4), ("b", 50), ("c", 5), ("d", 5)]]
    layouts, _ = safetensors.lay_out_shards("model", outlines, 10)
    assert [list(layout.slots) for layout in layouts] == [["a"], ["b"], ["c", "d"]]


def test_shards_are_read_back_through_their_index(tmp_path: Path) -> None:
    contents = contents_of(OUTLINES)
    layouts, index = safetensors.lay_out_shards("model", OUTLINES, 16)
    assert index is not None
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    for layout in layouts:
        write(layout, tmp_path, contents)
    tensors = safetensors.read_index(tmp_path / "model.safetensors.index.json")
    assert {key: tensor.read() for key, tensor in tensors.items()} == contents
    assert {tensor.file for tensor in tensors.values()} == {layout.name for layout in layouts}


def test_a_file_of_the_library_is_read(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "b": np.arange(6, dtype=np.int64).reshape(2, 3),
        "a": np.array([1.5], np.float32),
        "none": np.empty((3, 0), np.int8),
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"made": "here"})
    tensors = safetensors.read_file(tmp_path / "x.safetensors", "shard")
    assert tensors.keys() == arrays.keys()
    for key, array in arrays.items():
        tensor = tensors[key]
        assert (tensor.key, tensor.dtype.name, tensor.shape, tensor.file) == (
            key,
            array.dtype.name,
            array.shape,
            "shard",
        )
        assert tensor.read() == array.tobytes()


def test_bfloat16_of_the_library_is_read(tmp_path: Path) -> None:
    values = torch.randn(4, 5).to(torch.bfloat16)
    save_torch_file({"w": values}, tmp_path / "x.safetensors")
    tensor = safetensors.read_file(tmp_path / "x.safetensors")["w"]
    assert (tensor.dtype.name, tensor.shape) == ("bfloat16", (4, 5))
    assert tensor.read() == values.view(torch.int16).numpy().tobytes()


ONE = entry(0, 4)
REFUSED = {
    "empty file": (b"", "0 bytes, too few"),
    "length past the file": ((100).to_bytes(8, "little") + b"{}", "header of 100 bytes"),
    "length absurd": (b"\xff" * 8 + b"{}", "header of 18,446,744,073,709,551,615 bytes"),
    "not JSON": (raw(b"{nope}"), "not valid JSON"),
    "no object": (raw(b"[]"), "no safetensors file"),
    "leading space": (raw(b" {}"), "no safetensors file"),
    "not UTF-8": (raw(b'{"\xff": 1}'), "utf-8"),
    "deep": (raw(b'{"a":' * 20_000), "nested deeper"),
    "key twice": (raw(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}'), "'a' is given twice"),
    "metadata key twice": (raw(b'{"__metadata__":{"k":"1","k":"2"}}'), "'k' is given twice"),
    "metadata not text": (raw({"__metadata__": {"k": 1}}), "__metadata__: is not a map"),
    "metadata not a map": (raw({"__metadata__": "x"}), "__metadata__: is not a map"),
    "entry not a map": (raw({"a": []}), "'a': its entry"),
    "entry incomplete": (raw({"a": {"dtype": "U8", "shape": []}}), "'a': its entry"),
    "entry with more": (raw({"a": {**ONE, "x": 1}}, b"1234"), "'a': its entry"),
    "unknown dtype": (raw({"a": entry(0, 4, dtype="Q4")}, b"1234"), "'a': its dtype 'Q4'"),
    "dtype no text": (raw({"a": entry(0, 4, dtype=["U8"])}, b"1234"), "'a': its dtype"),
    "shape too small": (raw({"a": entry(0, 4, shape=[3])}, b"1234"), r"'a': uint8 \[3\] does not take the 4 bytes"),
    "shape too large": (raw({"a": entry(0, 4, dtype="F32", shape=[4])}, b"1234"), "'a': float32"),
    "shape negative": (raw({"a": entry(0, 4, shape=[-2, -2])}, b"1234"), "'a': its shape"),
    "shape not whole": (raw({"a": entry(0, 4, shape=[4.0])}, b"1234"), "'a': its shape"),
    "shape boolean": (raw({"a": entry(0, 1, shape=[True])}, b"1"), "'a': its shape"),
    "shape no list": (raw({"a": entry(0, 4, shape=4)}, b"1234"), "'a': its shape"),
    "shape overflow": (raw({"a": entry(0, 0, shape=[1 << 62, 4, 0])}), "'a': its shape is larger"),
    "too many axes": (raw({"a": entry(0, 1, shape=[1] * 65)}, b"1"), "'a': its shape"),
    "offset negative": (raw({"a": entry(-4, 0)}, b"1234"), "'a': its data_offsets"),
    "offsets fall": (raw({"a": entry(4, 0, shape=[4])}, b"1234"), "'a': its data_offsets"),
    "offsets not whole": (raw({"a": entry(0, 4.0, shape=[4])}, b"1234"), "'a': its data_offsets"),
    "three offsets": (raw({"a": entry(0, 4, 4)}, b"1234"), "'a': its data_offsets"),
    "overlap": (raw({"a": ONE, "b": entry(2, 6)}, b"123456"), "'b': overlaps"),
    "same place": (raw({"a": ONE, "b": ONE}, b"1234"), "'b': overlaps"),
    "hole": (raw({"a": ONE, "b": entry(6, 8)}, b"12345678"), "'b': follows a hole of 2 bytes"),
    "hole at the start": (raw({"a": entry(1, 4)}, b"1234"), "'a': follows a hole of 1 bytes"),
    "trailing bytes": (raw({"a": ONE}, b"12345"), "belong to no tensor"),
    "short buffer": (raw({"a": ONE}, b"123"), "is truncated"),
    "name with a slash": (raw({"a/b": ONE}, b"1234"), "'a/b' cannot be the name"),
    "name with a backslash": (raw({"a\\b": ONE}, b"1234"), "cannot be the name"),
    "name that climbs": (raw({"../a": ONE}, b"1234"), "'../a' cannot be the name"),
    "name with NUL": (raw({"a\0": ONE}, b"1234"), r"'a\\x00' cannot be the name"),
    "name that is half a character": (raw({"\ud800": ONE}, b"1234"), "surrogate"),
    "empty name": (raw({"": ONE}, b"1234"), "'' cannot be the name"),
    "long name": (raw({"a" * 1025: ONE}, b"1234"), "cannot be the name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_header_that_does_not_describe_the_file_exactly_is_refused_by_name(tmp_path: Path, case: str) -> None:
    data, reason = REFUSED[case]
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputRefused, match=reason) as caught:
        safetensors.read_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) <= 2


def test_a_header_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((safetensors.MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(safetensors.MAX_HEADER_BYTES + 100)
    with pytest.raises(InputRefused, match="header of 50,331,649 bytes; at most"):
        safetensors.read_file(path)


def test_more_tensors_than_any_model_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "MAX_TENSORS", 10)
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw({f"t{i}": entry(0, 0) for i in range(10)}))
    assert len(safetensors.read_file(path)) == 10
    path.write_bytes(raw({f"t{i}": entry(0, 0) for i in range(12)}))
    with pytest.raises(InputRefused, match="lists more than 10 tensors"):
        safetensors.read_file(path)
