"""Checkpoints of the reference are read byte for byte; damaged and hostile files are refused by file and key."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import lz4.block
import numpy as np
import pytest

from mmconvert.containers import mdl_read
from mmconvert.containers.layout import Outline
from mmconvert.containers.mdl_read import BAND_LIMIT, Filled, MdlFile, read_file
from mmconvert.containers.mdl_write import lay_out
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused

GOLDEN = Path(__file__).parents[1] / "golden"
W = np.arange(24, dtype="<f4").reshape(4, 6)
LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
ENTRY = {"version": "2.10.0", "model_name": "llava", "params": {"lr": 0.5, "none": None, "units": [1, {"a": "é"}]}}


def write(path: Path, tensors: dict[str, tuple[str, np.ndarray]], metadata: dict[str, Any]) -> None:
    """A checkpoint of ours, given torch's name of the element type and an array with the same bytes."""
    layout = lay_out(path.name, [Outline(k, BY_NAME[d], a.shape) for k, (d, a) in tensors.items()], metadata)
    with path.open("wb") as file:
        file.truncate(layout.size)
        for offset, data in layout.frame:
            file.seek(offset)
            file.write(data)
        for key, (_, array) in tensors.items():
            file.seek(layout.slots[key].offset)
            file.write(array.tobytes())


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A checkpoint with the model tensors `w` and `v`, to be damaged."""
    path = tmp_path / "good.mdl"
    write(path, {"w": ("float32", W), "v": ("float32", W)}, ENTRY)
    return path


def describe(file: Any, key: str, /, **described: Any) -> None:
    file.attrs[f"{key}.__metadata__"] = json.dumps({f"{key}.__metadata__": described})


def nest(file: Any, kind: str, names: list[str], *children: Any) -> None:
    """Replace the nesting by one of the given type; a child without one is a leaf."""
    root = {"type": kind, "context": json.dumps(names), "children_spec": [child or LEAF for child in children]}
    file.attrs["__spec__"] = json.dumps([None, json.dumps([1, root])])


def scope(*names: str) -> dict[str, Any]:
    return {"type": "builtins.dict", "context": json.dumps(names), "children_spec": [LEAF] * len(names)}


def stored_again(file: Any, key: str, **how: Any) -> Any:
    """The dataset `key` made anew with h5py, its attributes kept away."""
    del file[key]
    return file.create_dataset(key, **how)


@pytest.mark.parametrize(
    ("mdl", "case", "prefix"),
    [
        ("llama_tied_cs-2.4", "llama_tied__hf_to_cs-2.4", ""),
        ("clip_proj_cs-2.4", "clip_proj__hf_to_cs-2.4", ""),
        ("mmsimple_trainer_checkpoint_3", "mmsimple__hf_to_cs-2.4", "model."),
    ],
)
def test_every_tensor_of_the_reference_is_read_bit_for_bit(mdl: str, case: str, prefix: str) -> None:
    tensors = read_file(GOLDEN / f"mdl/{mdl}.mdl").tensors
    expected = json.loads((GOLDEN / f"cases/{case}.json").read_text())["tensors"]
    assert list(tensors) == [prefix + key for key in expected]
    for key, value in expected.items():
        ref = tensors[prefix + key]
        assert list(ref.shape) == value["shape"]
        assert f"torch.{ref.dtype}" == value["dtype"]
        assert hashlib.sha256(ref.read()).hexdigest() == value["sha256"], key


def test_trainer_checkpoint_gives_its_metadata_and_sets_optimizer_state_aside() -> None:
    file = read_file(GOLDEN / "mdl/mmsimple_trainer_checkpoint_3.mdl", "checkpoint_3.mdl")
    (entry,) = file.metadata
    assert entry["version"] == "2.4.0"
    model = entry["params"]["trainer"]["init"]["model"]
    assert model["freeze"] == ["^image_model"]
    # The second 48 and the second 32 are links in the file, since CPython has only one of each.
    assert model["image_model_list"]["global_image_projection"]["layers_units"] == [48, 48]
    assert model["image_model_list"]["image_models"][0]["image_encoder"]["hidden_size"] == 32
    assert file.set_aside["optimizer.param_groups.0.lr"] == "optimizer state is not converted"
    assert "global_step" in file.set_aside
    assert {ref.file for ref in file.tensors.values()} == {"checkpoint_3.mdl"}
    assert (file.version, file.saved_by) == ("checkpoint format 0.5, cerebras_pytorch 2.10.0", None)


def test_every_kind_of_leaf() -> None:
    file = read_file(GOLDEN / "mdl/rich.mdl")
    tensors = file.tensors
    assert tensors["tied.weight"].read() == tensors["a.weight"].read()
    assert tensors["view_of_a"].read() == tensors["a.weight"].read()[:32]
    assert tensors["bf16"].dtype.name == "bfloat16"
    assert tensors["f64"].read()[:8] == struct.pack("<d", 1.5)
    assert tensors["i64"].read() == struct.pack("<3q", 0, 1, 2)
    assert tensors["bool"].read() == b"\1\0"
    assert (tensors["scalar0d_i64"].shape, tensors["scalar0d_i64"].read()) == ((), struct.pack("<q", 7))
    assert (tensors["empty"].shape, tensors["empty"].read()) == ((0, 4), b"")
    for pickled in ("npint", "obj", "bytes"):
        assert "pickled" in file.set_aside[pickled]
    assert file.metadata == ({"version": "2.4.0", "model_name": "", "params": {"model": {"hidden_size": 64}}},)


@pytest.mark.parametrize("name", ["plain_minimal", "plain_written_with_h5py"])
def test_contiguous_tensors_are_read_as_h5py_reads_them(name: str) -> None:
    path = GOLDEN / f"mdl/{name}.mdl"
    tensors = read_file(path).tensors
    with h5py.File(path) as file:
        for key in ("x.weight", "b.weight"):
            assert tensors[key].read() == file[f"model.{key}"][()].tobytes()


def test_what_lay_out_wrote_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors: dict[str, tuple[str, np.ndarray]] = {
        "scalar": ("float32", np.array(3.25, "<f4")),
        "empty": ("bfloat16", np.empty((0, 3), "<u2")),
        "mask": ("bool", np.array([True, False, True])),
        "steps": ("int64", np.array([-1, 1 << 40])),
    }
    for i in range(400):
        dtype, code = [("bfloat16", "<u2"), ("float16", "<f2"), ("float32", "<f4")][i % 3]
        bits = rng.integers(0, 256, (i % 7 + 1) * 3 * np.dtype(code).itemsize, np.uint8)
        tensors[f"layers.{i}.weight"] = (dtype, bits.view(code).reshape(-1, 3))
    write(tmp_path / "x.mdl", tensors, ENTRY)
    file = read_file(tmp_path / "x.mdl")
    assert list(file.tensors) == list(tensors)
    for key, (dtype, array) in tensors.items():
        ref = file.tensors[key]
        assert (ref.dtype.name, ref.shape, ref.read()) == (dtype, array.shape, array.tobytes())
    assert file.metadata == (ENTRY,)
    assert file.set_aside == {}


def test_lz4_chunks_that_reach_over_the_edge(good: Path) -> None:
    with h5py.File(good, "r+") as file:
        del file["model.w"]
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((3, 4))
        created.set_filter(32004, h5py.h5z.FLAG_OPTIONAL, (0,))
        space = h5py.h5s.create_simple((4, 6))
        made = h5py.h5d.create(file.id, b"model.w", h5py.h5t.IEEE_F32LE, space, created)
        for row, column in np.ndindex(2, 2):
            chunk = np.full((3, 4), 77, "<f4")
            part = W[row * 3 : row * 3 + 3, column * 4 : column * 4 + 4]
            chunk[: part.shape[0], : part.shape[1]] = part
            block = min(chunk.tobytes(), lz4.block.compress(chunk.tobytes(), store_size=False), key=len)
            frame = struct.pack(">QII", chunk.nbytes, chunk.nbytes, len(block)) + block
            raw = (row, column) == (0, 1)
            made.write_direct_chunk((row * 3, column * 4), chunk.tobytes() if raw else frame, int(raw))
    assert read_file(good).tensors["w"].read() == W.tobytes()


def test_gzip_chunks_are_read_and_other_filters_refused(good: Path) -> None:
    with h5py.File(good, "r+") as file:
        stored_again(file, "model.w", data=W, chunks=(3, 4), compression="gzip")
    assert read_file(good).tensors["w"].read() == W.tobytes()
    with h5py.File(good, "r+") as file:
        stored_again(file, "model.w", data=W, chunks=(3, 4), compression="gzip", shuffle=True)
    with pytest.raises(InputRefused, match=r"good\.mdl: w: HDF5 filters \[2, 1\]"):
        read_file(good)


def test_a_band_of_chunks_may_hold_no_more_than_is_decoded_at_once(good: Path) -> None:
    for rows, columns, cut in (
        (BAND_LIMIT // 4, 1, (BAND_LIMIT // 4, 1)),
        (BAND_LIMIT // 4 + 1, 1, (BAND_LIMIT // 4 + 1, 1)),
        (BAND_LIMIT // 32, 9, (BAND_LIMIT // 32, 3)),
    ):
        with h5py.File(good, "r+") as file:
            made = stored_again(file, "model.w", shape=(rows, columns), dtype="<f4", chunks=cut, compression="gzip")
            for column in range(0, columns, cut[1]):
                made.id.write_direct_chunk((0, column), zlib.compress(bytes(4 * cut[0] * cut[1])))
            described = {"shapes": [[rows, columns]], "dtypes": ["torch.float32"]}
            describe(file, "model.w", __TYPE__="TorchTensorSerializer", **described)
        if rows * columns * 4 <= BAND_LIMIT:
            assert read_file(good).tensors["w"].read() == bytes(rows * columns * 4)
        else:
            with pytest.raises(InputRefused, match=r"good\.mdl: w: its chunks take more than 64 MiB to decode"):
                read_file(good)


def test_none_in_place_of_a_tied_weight_is_set_aside(good: Path) -> None:
    with h5py.File(good, "r+") as file:
        describe(file, "model.v", __TYPE__="NoneSerializer")
    assert list(read_file(good).tensors) == ["w"]
    assert "tied" in read_file(good).set_aside["model.v"]


def test_without_a_model_scope_the_tensors_at_the_top_are_the_model(good: Path) -> None:
    with h5py.File(good, "r+") as file:
        file.move("model.w", "w")
        describe(file, "w", __TYPE__="TorchTensorSerializer", shapes=[[4, 6]], dtypes=["torch.float32"])
        describe(file, "step", __TYPE__="ScalarSerializer", scalar_value=3)
        describe(file, "other.v", __TYPE__="LinkedObject", key="model.v")
        nest(file, "collections.OrderedDict", ["w", "step", "other"], None, None, scope("v"))
    found = read_file(good)
    assert list(found.tensors) == ["w"]
    assert found.tensors["w"].read() == W.tobytes()
    assert set(found.set_aside) == {"step", "other.v"}


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [("float32", 1.5, struct.pack("<f", 1.5)), ("bfloat16", 1 + 2**-8 + 2**-20, b"\x81\x3f"), ("bool", True, b"\1")],
)
def test_deferred_full_tensor_is_its_value_throughout(good: Path, dtype: str, value: Any, expected: bytes) -> None:
    with h5py.File(good, "r+") as file:
        full = {"__TYPE__": "DeferredFullTensor", "shape": [2, 3], "dtype": f"torch.{dtype}", "fill_value": value}
        describe(file, "model.v", **full)
    assert read_file(good).tensors["v"].read() == expected * 6
    with h5py.File(good, "r+") as file:
        describe(file, "model.v", **(full | {"shape": [1 << 20, 1 << 20]}))
    with pytest.raises(InputRefused, match=r"good\.mdl: v: .* of one value"):
        read_file(good)


def test_filled_is_read_from_any_byte_on() -> None:
    buffers = [bytearray(3), bytearray(0), bytearray(6)]
    Filled(b"abcd").read_into(2, [memoryview(buffer) for buffer in buffers])
    assert buffers == [b"cda", b"", b"bcdabc"]


def no_success(file: Any) -> None:
    del file.attrs["__SUCCESS__"]


def group(file: Any) -> None:
    del file["model.w"]
    file.create_group("model.w")


def missing_chunks(file: Any) -> None:
    stored_again(file, "model.w", shape=(4, 6), dtype="<f4", chunks=(2, 6))[:2] = W[:2]


@pytest.mark.parametrize(
    ("damage", "said"),
    [(no_success, "partially written"), (group, "cannot be read"), (missing_chunks, "w: only 1 of its 2 chunks")],
)
def test_damaged_file_is_refused_by_name_in_one_line(good: Path, damage: Callable[[Any], None], said: str) -> None:
    with h5py.File(good, "r+") as file:
        damage(file)
    with pytest.raises(InputRefused, match=rf"good\.mdl: .*{said}") as refusal:
        read_file(good)
    assert len(str(refusal.value).splitlines()) == 1


def test_truncated_file_is_refused(good: Path) -> None:
    whole = good.stat().st_size
    for length in (0, 8, 100, whole // 2, whole - 1):
        good.write_bytes(good.read_bytes()[:length])
        with pytest.raises(InputRefused, match=r"good\.mdl"):
            read_file(good)


def test_user_block_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.mdl", "w", userblock_size=512):
        pass
    with pytest.raises(InputRefused, match="user block"):
        read_file(tmp_path / "x.mdl")


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "gone.mdl", tmp_path, tmp_path / "pipe"):
        with pytest.raises(InputRefused, match=str(path)):
            read_file(path)


def test_the_folder_the_user_stands_in_is_not_imported_from(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (good.parent / "h5py.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(good.parent)
    assert list(read_file(Path("good.mdl")).tensors) == ["w", "v"]


def test_process_that_hangs_is_stopped(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdl_read, "CHILD", ("-c", "import time; time.sleep(600)"))
    with pytest.raises(InputRefused, match=r"good\.mdl: .* within 0\.2 seconds"):
        read_file(good, timeout=0.2)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed HDF5"),
        ("raise SystemExit(3)", "crashed HDF5"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "within 3 seconds of processor time"),
        ("pass", "made sense of"),
        ("print('[' * 10**6)", "made sense of"),
        ("print('[]')", "made sense of"),
        ("print('{}')", "made sense of"),
        ("""print('{"refused": "a\\\\u001b[31m\\\\nb"}')""", "a\N{REPLACEMENT CHARACTER}"),
        ("print('x' * 2000)", "takes more than"),
    ],
)
def test_process_is_not_believed(good: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str) -> None:
    monkeypatch.setattr(mdl_read, "CHILD", ("-c", program))
    if "takes" in said:
        monkeypatch.setattr(mdl_read, "ANSWER_LIMIT", 900)
    with pytest.raises(InputRefused, match=rf"good\.mdl: .*{said}"):
        read_file(good)


ENTRY_AT = {"key": "w", "dtype": "float32", "shape": [4, 6]}
ANSWER = {"tensors": [], "metadata": [], "set_aside": {}, "format": 0.5, "release": None, "saved_by": None}


def answered(monkeypatch: pytest.MonkeyPatch, path: Path, **where: Any) -> MdlFile:
    """What comes of an answer with one tensor."""
    tensor = ENTRY_AT | where
    answer = ANSWER | {"tensors": [tensor]}
    monkeypatch.setattr(mdl_read, "_ask", lambda path, size, timeout: json.dumps(answer).encode())
    return read_file(path)


@pytest.mark.parametrize("release", ["", "newest", "2", 2.0, ["2.0"], {}])
def test_a_release_that_is_none_is_refused(good: Path, monkeypatch: pytest.MonkeyPatch, release: Any) -> None:
    answer = ANSWER | {"saved_by": release}
    monkeypatch.setattr(mdl_read, "_ask", lambda path, size, timeout: json.dumps(answer).encode())
    with pytest.raises(InputRefused, match="made sense of"):
        read_file(good)


@pytest.mark.parametrize(
    "where",
    [
        {"offset": -1},
        {"offset": 1 << 40},
        {"offset": 1.0},
        {"offset": None},
        {"offset": 0, "shape": [-4, -6]},
        {"offset": 0, "shape": [1 << 40, 1 << 40]},
        {"offset": 0, "dtype": "complex64"},
        {"fill": "x"},
        {"fill": 300, "dtype": "uint8"},
        {"chunk": [0, 6], "filters": [], "chunks": []},
        {"chunk": [4], "filters": [], "chunks": []},
        {"chunk": [4, 6], "filters": [], "chunks": []},
        {"chunk": [4, 6], "filters": [], "chunks": [[0, 0, 1 << 40, 96, 0]]},
        {"chunk": [4, 6], "filters": [], "chunks": [[0, 0, 0, -1, 0]]},
        {"chunk": [4, 6], "filters": [], "chunks": [[4, 0, 0, 96, 0]]},
        {"chunk": [2, 6], "filters": [], "chunks": [[0, 0, 0, 48, 0], [0, 0, 48, 48, 0]]},
        {"chunk": [4, 6], "filters": [32015], "chunks": [[0, 0, 0, 96, 0]]},
        {"chunk": [1 << 20, 1 << 20], "filters": [32004], "chunks": [[0, 0, 0, 96, 0]]},
    ],
)
def test_numbers_that_do_not_fit_the_file_are_refused(
    good: Path, monkeypatch: pytest.MonkeyPatch, where: dict[str, Any]
) -> None:
    with pytest.raises(InputRefused, match=r"good\.mdl: "):
        answered(monkeypatch, good, **where)


def test_reading_leaves_the_limits_of_this_process_alone(good: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    read_file(good)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
