"""What is laid out and sealed here is read by torch, by Python's zipfile and by our own reader, to the last bit."""

from __future__ import annotations

import os
import pickletools
import random
import zipfile
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmconvert import manifest
from mmconvert.containers import torch_bin, torch_bin_write
from mmconvert.containers.layout import FileLayout, Outline
from mmconvert.containers.torch_bin_write import lay_out
from mmconvert.containers.torch_pickle import STORAGES
from mmconvert.containers.torch_pickle_write import state_dict
from mmconvert.copying import BLOCK
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused
from mmconvert.execute import execute
from mmconvert.plans import OutputFile, Plan, PlannedTensor
from tests.tensor_sources import Held

OUTLINES = [
    Outline("model.mm_projector.0.weight", BY_NAME["bfloat16"], (300, 7)),
    Outline("model.mm_projector.0.bias", BY_NAME["float16"], (300,)),
    Outline("double", BY_NAME["float64"], (2, 3, 4)),
    Outline("single", BY_NAME["float32"], (5, 1)),
    Outline("scalar", BY_NAME["float32"], ()),
    Outline("empty", BY_NAME["float32"], (3, 0, 4)),
    Outline("long", BY_NAME["int64"], (9,)),
    Outline("flags", BY_NAME["bool"], (3,)),
]
DTYPES = st.sampled_from(sorted({dtype.name for dtype in STORAGES.values()})).map(BY_NAME.__getitem__)
SHAPES = st.lists(st.integers(0, 300), max_size=3).filter(lambda shape: prod(shape) < 5000).map(tuple)
KEYS = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P"), exclude_characters="/\\"), min_size=1, max_size=80
)
LISTS = st.lists(st.builds(Outline, KEYS, DTYPES, SHAPES), max_size=8, unique_by=lambda outline: outline.key)

Contents = dict[str, bytes]


def some_bytes(outline: Outline) -> bytes:
    data = random.Random(outline.key).randbytes(outline.nbytes)
    return bytes(byte & 1 for byte in data) if outline.dtype.name == "bool" else data


def some(outlines: list[Outline]) -> Contents:
    return {outline.key: some_bytes(outline) for outline in outlines}


def assembled(layout: FileLayout, contents: Contents, folder: Path) -> Path:
    """The file as the engine makes it: frame and tensors in any order, and the frame again when it is sealed."""
    assert layout.seal is not None
    path = folder / layout.name
    with path.open("w+b", buffering=0) as file:
        file.truncate(layout.size)
        for offset, data in [*layout.frame, *((layout.slots[key].offset, data) for key, data in contents.items())]:
            os.pwrite(file.fileno(), data, offset)
        for offset, data in layout.seal(file.fileno()):
            os.pwrite(file.fileno(), data, offset)
    return path


def made(outlines: list[Outline], folder: Path, name: str = "mm_projector.bin") -> tuple[Path, Contents]:
    contents = some(outlines)
    return assembled(lay_out(name, outlines), contents, folder), contents


def bytes_of(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())


# --- its readers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mapped", [False, True])
def test_torch_reads_it_as_plain_tensors(tmp_path: Path, mapped: bool) -> None:
    path, contents = made(OUTLINES, tmp_path)
    found = torch.load(path, weights_only=True, mmap=mapped)
    assert type(found) is dict
    assert list(found) == [outline.key for outline in OUTLINES]
    for outline in OUTLINES:
        tensor = found[outline.key]
        assert (str(tensor.dtype), tuple(tensor.shape)) == (f"torch.{outline.dtype}", outline.shape)
        assert tensor.is_contiguous()
        assert tensor.stride() == torch.empty(outline.shape).stride()
        assert not tensor.requires_grad
        assert bytes_of(tensor) == contents[outline.key]


SIZES = (*(at + by for at in (1 << 7, 1 << 8, 1 << 15, 1 << 16) for by in (-1, 0, 1)), (1 << 31) - 1, 1 << 31)


@pytest.mark.parametrize("size", SIZES)
def test_no_size_is_read_back_as_a_negative_one(size: int) -> None:
    pickled = state_dict([Outline("key", BY_NAME["uint8"], (size, 1))])
    numbers = [value for opcode, value, _ in pickletools.genops(pickled) if opcode.name in ("BININT1", "LONG1")]
    # The elements of its storage, where in it they begin, the shape and the strides.
    assert numbers == [size, 0, size, 1, 1, 1]


def test_zipfile_finds_every_checksum_right(tmp_path: Path) -> None:
    path, contents = made(OUTLINES, tmp_path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        names = ["data.pkl", "byteorder", *(f"data/{number}" for number in range(len(OUTLINES))), "version"]
        assert archive.namelist() == [f"archive/{name}" for name in names]
        assert (archive.read("archive/byteorder"), archive.read("archive/version")) == (b"little", b"3\n")
        for number, outline in enumerate(OUTLINES):
            assert archive.read(f"archive/data/{number}") == contents[outline.key]


def test_our_own_reader_finds_what_was_laid_out(tmp_path: Path) -> None:
    path, contents = made(OUTLINES, tmp_path)
    found = torch_bin.read_file(path)
    assert [Outline(each.key, each.dtype, each.shape) for each in found.values()] == OUTLINES
    assert {key: each.read() for key, each in found.items()} == contents


@settings(max_examples=60, deadline=None)
@given(outlines=LISTS)
def test_so_it_is_for_any_tensors(outlines: list[Outline], tmp_path_factory: pytest.TempPathFactory) -> None:
    path, contents = made(outlines, tmp_path_factory.mktemp("bin"))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    found = torch.load(path, weights_only=True)
    assert {key: bytes_of(tensor) for key, tensor in found.items()} == contents
    assert [tuple(tensor.shape) for tensor in found.values()] == [outline.shape for outline in outlines]
    assert {key: each.read() for key, each in torch_bin.read_file(path).items()} == contents


def test_torch_s_own_pickle_of_the_same_calls_the_same(tmp_path: Path) -> None:
    """Opcode by opcode, but for the memo, which saves room only, and the ways to write a number and a tuple."""
    tensors = {"a.weight": torch.zeros(2, 3, dtype=torch.bfloat16), "b": torch.zeros(70000)}
    torch.save(tensors, tmp_path / "theirs.bin")
    outlines = [Outline("a.weight", BY_NAME["bfloat16"], (2, 3)), Outline("b", BY_NAME["float32"], (70000,))]
    ours, _ = made(outlines, tmp_path)

    def program(path: Path) -> list[Any]:
        with zipfile.ZipFile(path) as archive:
            (name,) = (each for each in archive.namelist() if each.endswith("/data.pkl"))
            data = archive.read(name)
        memo: dict[Any, Any] = {}
        steps: list[Any] = []
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "BINPUT":
                memo[argument] = steps[-1]
            elif opcode.name == "BINGET":
                steps.append(memo[argument])
            elif opcode.name in ("TUPLE1", "TUPLE2", "TUPLE3", "TUPLE"):
                steps.append("tuple")
            elif opcode.name != "MARK":
                steps.append(argument if argument is not None else opcode.name)
        return steps

    assert program(ours) == program(tmp_path / "theirs.bin")


# --- its bytes --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(outlines=LISTS)
def test_every_tensor_has_a_place_of_its_own_at_a_multiple_of_64(outlines: list[Outline]) -> None:
    layout = lay_out("mm_projector.bin", outlines)
    assert {key: slot.nbytes for key, slot in layout.slots.items()} == {each.key: each.nbytes for each in outlines}
    assert all(slot.offset % 64 == 0 for slot in layout.slots.values())
    spans = [(slot.offset, slot.nbytes) for slot in layout.slots.values() if slot.nbytes]
    spans += [(offset, len(data)) for offset, data in layout.frame]
    at = 0
    for offset, length in sorted(spans):
        assert offset == at
        at += length
    assert at == layout.size
    assert list(layout.frame) == sorted(layout.frame)


def test_sealing_changes_the_checksums_of_tensors_and_nothing_else(tmp_path: Path) -> None:
    layout = lay_out("mm_projector.bin", OUTLINES)
    path, _ = made(OUTLINES, tmp_path)
    with path.open("rb") as file:
        assert layout.seal is not None
        sealed = layout.seal(file.fileno())
    assert [(offset, len(data)) for offset, data in sealed] == [(offset, len(data)) for offset, data in layout.frame]
    differing = sum(
        left != right
        for (_, a), (_, b) in zip(sealed, layout.frame, strict=True)
        for left, right in zip(a, b, strict=True)
    )
    # Four bytes in front and four in the directory, for each tensor that is not empty.
    assert 0 < differing <= 8 * (len(OUTLINES) - 1)


def test_the_same_tensors_give_the_same_bytes_whatever_the_file_is_called(tmp_path: Path) -> None:
    first, second = (made(OUTLINES, tmp_path, name)[0] for name in ("a.bin", "another.bin"))
    assert first.read_bytes() == second.read_bytes()


def test_checksums_are_made_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    pread = os.pread

    def watched(fd: int, size: int, offset: int) -> bytes:
        asked.append(size)
        return pread(fd, max(1, size // 2), offset)

    monkeypatch.setattr(torch_bin_write, "BLOCK", 64)
    monkeypatch.setattr(os, "pread", watched)
    path, _ = made(OUTLINES, tmp_path)
    assert max(asked) == 64
    monkeypatch.undo()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


# --- what it cannot hold ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BY_NAME.keys() - {dtype.name for dtype in STORAGES.values()}))
def test_an_element_type_without_a_storage_is_refused(name: str) -> None:
    with pytest.raises(InputRefused, match=f"odd: a .bin file cannot hold {name}"):
        lay_out("mm_projector.bin", [Outline("odd", BY_NAME[name], (2,))])


def test_four_gigabytes_are_refused_and_a_little_less_is_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    byte = BY_NAME["uint8"]
    with pytest.raises(InputRefused, match=r"a \.bin file holds less than 4 GiB"):
        lay_out("mm_projector.bin", [Outline("a", byte, (1 << 31,)), Outline("b", byte, (1 << 31,))])
    layout = lay_out("mm_projector.bin", [Outline("a", byte, ((1 << 32) - 2048,))])
    assert (1 << 32) - 2048 < layout.size < 1 << 32
    monkeypatch.setattr(torch_bin_write, "MAX_ENTRIES", 5)
    assert lay_out("mm_projector.bin", [Outline(name, byte, ()) for name in "ab"])
    with pytest.raises(InputRefused, match=r"at most 5 entries, not .* bytes in 6"):
        lay_out("mm_projector.bin", [Outline(name, byte, ()) for name in "abc"])


# --- in a conversion --------------------------------------------------------------------------------------------------


def plan(out: Path, outlines: list[Outline]) -> Plan:
    layout = lay_out("mm_projector.bin", outlines)
    contents = some(outlines)
    tensors = (
        PlannedTensor(each.key, each.dtype, each.shape, Held(contents[each.key]), None, "made") for each in outlines
    )
    return Plan(out, (OutputFile(layout, tuple(tensors)),), {"config.json": b"{}"})


@pytest.mark.parametrize("outlines", [OUTLINES, OUTLINES[5:6], []], ids=["many", "empty", "none"])
def test_the_engine_seals_it_and_the_folder_is_verified(tmp_path: Path, outlines: list[Outline]) -> None:
    execute(plan(tmp_path / "out", outlines), fsync=False)
    assert manifest.check_folder(tmp_path / "out").problems == []
    with zipfile.ZipFile(tmp_path / "out/mm_projector.bin") as archive:
        assert archive.testzip() is None
    found = torch.load(tmp_path / "out/mm_projector.bin", weights_only=True)
    assert {key: bytes_of(tensor) for key, tensor in found.items()} == some(outlines)


def test_a_tensor_of_several_blocks_is_sealed_when_all_of_it_is_there(tmp_path: Path) -> None:
    outlines = [Outline("large", BY_NAME["float32"], (BLOCK, 1)), *OUTLINES]
    execute(plan(tmp_path / "out", outlines), fsync=True)
    assert manifest.check_folder(tmp_path / "out").problems == []
    with zipfile.ZipFile(tmp_path / "out/mm_projector.bin") as archive:
        assert archive.testzip() is None


def test_the_same_plan_gives_the_same_folder(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        execute(plan(folder, OUTLINES), fsync=False)
    for name in ("mm_projector.bin", "mmconvert.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_every_flipped_bit_is_found_those_of_checksums_too(tmp_path: Path) -> None:
    execute(plan(tmp_path / "out", OUTLINES[4:6]), fsync=False)
    path = tmp_path / "out/mm_projector.bin"
    data = path.read_bytes()
    for at in range(len(data)):
        with path.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), bytes([data[at] ^ 1 << at % 8]), at)
        assert manifest.check_folder(tmp_path / "out").problems, at
        path.write_bytes(data)
