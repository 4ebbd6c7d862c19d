"""torch's checkpoints: every view that torch saves is read back byte for byte, and nothing in them ever runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from mmconvert.containers import torch_bin, torch_pickle
from mmconvert.containers.torch_bin import Strided
from mmconvert.errors import InputRefused
from mmconvert.sources import TensorRef

BASE = torch.arange(120, dtype=torch.float32).reshape(4, 5, 6)
VIEWS = {
    "whole": BASE,
    "transposed": BASE.transpose(0, 2),
    "rows": BASE[1:3],
    "columns": BASE[:, :, 1:4],
    "every other": BASE[::2, :, ::3],
    "one column": BASE[:, 2:3, 4],
    "scalar": torch.tensor(3.5),
    "element": BASE[2, 3, 4],
    "empty": torch.empty(0, 7),
    "empty view": BASE[:, 3:3],
    "broadcast of one": BASE.reshape(-1)[5:6].expand(1, 1),
    "parameter": torch.nn.Parameter(BASE[0].t()),
    "tied": BASE,
}


def saved(tmp_path: Path, document: Any, **options: Any) -> Path:
    path = tmp_path / "pytorch_model.bin"
    torch.save(document, path, **options)
    return path


def bytes_of(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist())


def assert_same(refs: dict[str, TensorRef], tensors: dict[str, torch.Tensor]) -> None:
    assert list(refs) == list(tensors)
    for key, tensor in tensors.items():
        ref = refs[key]
        assert (ref.key, ref.shape, f"torch.{ref.dtype}") == (key, tuple(tensor.shape), str(tensor.dtype))
        assert ref.read() == bytes_of(tensor)


def repacked(path: Path, change: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """The file with other bytes for some entries, rewritten by Python's zipfile."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {**entries, **{f"{path.stem}/{name}": data for name, data in change.items()}}.items():
            archive.writestr(name, data)
    return path


def with_pickle(tmp_path: Path, pickled: bytes) -> Path:
    """A checkpoint whose one storage, "0", has four floats, and whose pickle is this one."""
    return repacked(saved(tmp_path, {"w": torch.zeros(4)}), {"data.pkl": pickled})


class Call:
    """Pickled as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


class Reference:
    """Pickled as a reference to a storage, the way torch refers to one."""

    def __init__(self, *reference: Any) -> None:
        self.reference = reference


class TorchPickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.reference if isinstance(obj, Reference) else None


def crafted(document: Any) -> bytes:
    file = io.BytesIO()
    TorchPickler(file, protocol=2).dump(document)
    return file.getvalue()


def view(offset: Any = 0, shape: Any = (4,), strides: Any = (1,), count: Any = 4, key: Any = "0", *flags: Any) -> Call:
    storage = Reference("storage", torch.FloatStorage, key, "cpu", count)
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, shape, strides, False, OrderedDict(), *flags)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_view_is_read_as_torch_saved_it(tmp_path: Path, protocol: int) -> None:
    assert_same(torch_bin.read_file(saved(tmp_path, VIEWS, pickle_protocol=protocol)), VIEWS)


def test_what_is_contiguous_is_a_span_and_tied_tensors_share_it(tmp_path: Path) -> None:
    refs = torch_bin.read_file(saved(tmp_path, VIEWS), "shard")
    strided = {key for key, ref in refs.items() if isinstance(ref.source, Strided)}
    assert strided == {"transposed", "columns", "every other", "one column", "parameter"}
    assert refs["whole"].source == refs["tied"].source
    assert {ref.file for ref in refs.values()} == {"shard"}


def test_any_part_of_a_strided_tensor_is_that_part_of_the_whole(tmp_path: Path) -> None:
    tensor = BASE.transpose(0, 2)[1:, ::2]
    source = torch_bin.read_file(saved(tmp_path, {"w": tensor}))["w"].source
    whole = bytes_of(tensor)
    assert isinstance(source, Strided)
    for start in (0, 1, 3, 4, 50):
        for lengths in ((1,), (3, 7), (4, 0, 9), (len(whole) - start,)):
            parts = [bytearray(length) for length in lengths]
            source.read_into(start, [memoryview(part) for part in parts])
            assert b"".join(parts) == whole[start : start + sum(lengths)]


def test_a_strided_tensor_of_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"w": torch.zeros(100, 100).t()})
    ref = torch_bin.read_file(path)["w"]
    os.truncate(path, 20_000)
    with pytest.raises(InputRefused, match="ends before a tensor"):
        ref.read()


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]
)
def test_every_dtype_is_read(tmp_path: Path, dtype: str) -> None:
    tensor = torch.tensor([[0, 1, 1], [1, 0, 1]]).to(getattr(torch, dtype))
    tensors = {"plain": tensor, "strided": tensor.clone().t()}
    assert_same(torch_bin.read_file(saved(tmp_path, tensors)), tensors)


def test_the_state_dict_of_a_module_is_read(tmp_path: Path) -> None:
    state = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict()
    assert_same(torch_bin.read_file(saved(tmp_path, state)), dict(state))


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_weights_may_lie_one_level_down_beside_counters(tmp_path: Path, wrapper: str) -> None:
    path = saved(tmp_path, {"epoch": 3, wrapper: {"w": BASE, "global_step": 7}})
    assert_same(torch_bin.read_file(path), {"w": BASE})


@pytest.mark.parametrize(
    ("document", "name"),
    [
        ({"w": BASE, "config": {"hidden_size": 4}}, "config"),
        ({"w": BASE, "note": "text"}, "note"),
        ({"w": [BASE]}, "w"),
        ({"model": {"w": BASE}, "optimizer": {"state": {0: BASE}}}, "optimizer"),
        ({"model": {"w": BASE}, "extra": BASE}, "extra"),
        ({"model": {"module": {"w": BASE}}}, "module"),
        ({"w": BASE, "epoch": [3]}, "epoch"),
    ],
)
def test_what_is_no_weight_is_refused_by_its_name(tmp_path: Path, document: Any, name: str) -> None:
    with pytest.raises(InputRefused, match=f"'{name}': is no tensor of the model"):
        torch_bin.read_file(saved(tmp_path, document))


def test_a_checkpoint_that_is_no_dict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="holds no dict of tensors"):
        torch_bin.read_file(saved(tmp_path, [BASE]))


def test_an_index_of_bin_files_is_read(tmp_path: Path) -> None:
    torch.save({"a": BASE}, tmp_path / "one.bin")
    torch.save({"b": BASE[0]}, tmp_path / "two.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"b": "two.bin", "a": "one.bin"}}))
    assert_same(torch_bin.read_index(index), {"b": BASE[0], "a": BASE})


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_something_is_refused_by_name_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "ran"
    pickled = pickle.dumps({"w": Call(os.system, f"touch {witness}")}, protocol)
    with pytest.raises(InputRefused, match=r"posix\.system|opcode"):
        torch_bin.read_file(with_pickle(tmp_path, pickled))
    assert not witness.exists()


LAUGHS = b"\x80\x02}(K\x01\x85q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(100))


@pytest.mark.parametrize(
    ("pickled", "reason"),
    [
        (pickle.dumps({"w": getattr}, 2), "__builtin__.getattr"),
        (b"\x80\x02ccollections\nOrderedDict.fromkeys\n.", "collections.OrderedDict.fromkeys"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x04K\x01K\x02\x93.", "what is no string"),
        (b"\x80\x02}q\x00X\x01\x00\x00\x00wh\x00s.", "'w': is no tensor"),
        (b"\x80\x02]q\x00h\x00a.", "no dict of tensors"),
        (LAUGHS + b"K\x01u.", "neither a string nor an integer"),
        (b"\x80\x02}(X\x01\x00\x00\x00wK\x01X\x01\x00\x00\x00wK\x02u.", "the key 'w' twice"),
        (b"\x80\x02K\x01K\x02a.", "no list"),
        (b"\x80\x02K\x01K\x02K\x03s.", "no dict"),
        (b"\x80\x02ctorch\nFloatStorage\n}b.", "gives attributes to"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "makes an object"),
        (b"\x80\x02K\x01Q.", "refers to a storage"),
        (b"\x80\x02}2.", "opcode DUP"),
        (b"\x80\x02", "not a well-formed pickle"),
        (b"\x80\x02.", "not a well-formed pickle"),
        (b"\x80\x02h\x05.", "not a well-formed pickle"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "not a well-formed pickle"),
        (b"\xff.", "not a well-formed pickle"),
    ],
)
def test_a_pickle_that_says_more_or_less_than_tensors_is_refused(tmp_path: Path, pickled: bytes, reason: str) -> None:
    path = with_pickle(tmp_path, pickled)
    with pytest.raises(InputRefused, match=reason) as caught:
        torch_bin.read_file(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_memo_index_of_four_thousand_million_takes_no_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    assert torch_bin.read_file(with_pickle(tmp_path, b"\x80\x02}r\xff\xff\xff\xff.")) == {}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_the_crafted_view_is_read_where_nothing_is_wrong_with_it(tmp_path: Path) -> None:
    refs = torch_bin.read_file(with_pickle(tmp_path, crafted({"w": view()})))
    assert refs["w"].read() == bytes(16)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (view(offset=1), "'w': reaches past the end"),
        (view(shape=(5,)), "'w': reaches past the end"),
        (view(strides=(2,)), "'w': reaches past the end"),
        (view(offset=5, shape=(0,)), "'w': reaches past the end"),
        (view(shape=(1 << 40,), strides=(0,)), "'w': repeats elements: it has 1,099,511,627,776"),
        (view(shape=(4, 2), strides=(1, 0)), "'w': repeats elements"),
        (view(shape=(1 << 62, 4), strides=(0, 0)), "shape in its data.pkl is larger"),
        (view(shape=(-4,)), "shape in its data.pkl is not"),
        (view(shape=(True,)), "shape in its data.pkl is not"),
        (view(shape="4"), "shape in its data.pkl is not"),
        (view(strides=(-1,)), "not a plain view"),
        (view(offset=-1), "not a plain view"),
        (view(offset=0.0), "not a plain view"),
        (view(strides=()), "not a plain view"),
        (view(0, (4,), (1,), 4, "0", {"neg": True}), "not a plain view"),
        (view(count=3, shape=(3,)), "'w': its storage should have 3 elements of float32, but has 16 bytes"),
        (view(count=1 << 40), "'w': its storage should have"),
        (view(count=-4), "refers to a storage"),
        (view(key="7"), "'w': its storage data/7 is missing"),
        (view(key="../data.pkl"), "is missing"),
        (view(key=0), "refers to a storage"),
    ],
)
def test_a_tensor_that_does_not_lie_in_its_storage_is_refused(tmp_path: Path, tensor: Call, reason: str) -> None:
    with pytest.raises(InputRefused, match=reason):
        torch_bin.read_file(with_pickle(tmp_path, crafted({"w": tensor})))


def test_tensors_that_would_take_many_times_the_file_are_refused(tmp_path: Path) -> None:
    def sharing(count: int) -> Path:
        weight = torch.zeros(1 << 20)
        return saved(tmp_path, {f"w{at}": weight for at in range(count)})

    assert len(torch_bin.read_file(sharing(8))) == 8
    with pytest.raises(InputRefused, match=r"pytorch_model\.bin: 'w8': shares its bytes .* more than 8 times the file"):
        torch_bin.read_file(sharing(12))


def test_a_name_that_could_be_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="cannot be the name of a tensor"):
        torch_bin.read_file(saved(tmp_path, {"../w": BASE}))


def test_the_old_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = saved(tmp_path, {"w": BASE}, _use_new_zipfile_serialization=False)
    with pytest.raises(InputRefused, match=r"(?s)not in torch's zip format.*torch\.save\(torch\.load\("):
        torch_bin.read_file(path)


def test_a_compressed_checkpoint_is_refused(tmp_path: Path) -> None:
    path = repacked(saved(tmp_path, {"w": BASE}), {}, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputRefused, match="is compressed or encrypted"):
        torch_bin.read_file(path)


def test_big_endian_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="big-endian"):
        torch_bin.read_file(repacked(saved(tmp_path, {"w": BASE}), {"byteorder": b"big"}))


def test_a_zip_without_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(InputRefused, match="no checkpoint"):
        torch_bin.read_file(path)


def test_a_pickle_over_the_limit_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, {"w": BASE})
    monkeypatch.setattr(torch_bin, "MAX_PICKLE_BYTES", 100)
    with pytest.raises(InputRefused, match="at most 100 are read"):
        torch_bin.read_file(path)


def test_a_directory_over_the_limit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, {"w": BASE})
    monkeypatch.setattr(torch_bin, "MAX_DIRECTORY_BYTES", 100)
    with pytest.raises(InputRefused, match="and at most 100 are read"):
        torch_bin.read_file(path)


def test_a_pickle_that_goes_on_and_on_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_pickle(tmp_path, b"\x80\x02" + b"]" * 7 + b".")
    monkeypatch.setattr(torch_pickle, "MAX_OPCODES", 9)
    with pytest.raises(InputRefused, match="holds no dict"):
        torch_bin.read_file(path)
    monkeypatch.setattr(torch_pickle, "MAX_OPCODES", 8)
    with pytest.raises(InputRefused, match="more than 8 opcodes"):
        torch_bin.read_file(path)


@pytest.mark.parametrize("cut", [4, 100, 1000])
def test_a_truncated_zip_is_refused(tmp_path: Path, cut: int) -> None:
    path = saved(tmp_path, {"w": BASE})
    os.truncate(path, cut)
    with pytest.raises(InputRefused, match="not a readable zip file"):
        torch_bin.read_file(path)


def local_header(path: Path, name: str) -> int:
    with zipfile.ZipFile(path) as archive:
        return archive.getinfo(f"{path.stem}/{name}").header_offset


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (0, b"PK\x01\x02", "not where, or not what"),
        (6, struct.pack("<H", 0x801), "compressed or encrypted"),
        (8, struct.pack("<H", 8), "compressed or encrypted"),
        (22, struct.pack("<I", 17), "not where, or not what"),
        (26, struct.pack("<H", 3), "not where, or not what"),
        (28, struct.pack("<H", 0xFFFF), "not where, or not what"),
        (30, b"P", "not where, or not what"),
    ],
)
def test_a_local_header_that_contradicts_the_directory_is_refused(
    tmp_path: Path, field: int, value: bytes, reason: str
) -> None:
    path = saved(tmp_path, {"w": BASE})
    data = bytearray(path.read_bytes())
    at = local_header(path, "data/0") + field
    data[at : at + len(value)] = value
    path.write_bytes(data)
    with pytest.raises(InputRefused, match=rf"entry 'pytorch_model/data/0' is {reason}"):
        torch_bin.read_file(path)


def test_an_entry_given_twice_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"w": BASE})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(f"{path.stem}/data/0", bytes(480))
    with pytest.raises(InputRefused, match="not where, or not what"):
        torch_bin.read_file(path)
