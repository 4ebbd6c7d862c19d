"""What `lay_out` makes is, with the tensors' bytes in their slots, a checkpoint as the reference writes it."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmconvert.containers.layout import FileLayout, Outline
from mmconvert.containers.mdl_write import RTFX_CODES, lay_out
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused

ROOT = Path(__file__).parents[2]
ENTRY: dict[str, Any] = {
    "version": "2.10.0",
    "model_name": "llava",
    "params": {"lr": 0.5, "flag": True, "none": None, "empty": {}, "list": [], "units": [1, None, {"a": "é"}]},
}
OUTLINES = [
    Outline("a.weight", BY_NAME["bfloat16"], (3, 5)),
    Outline("scale", BY_NAME["float32"], ()),
    Outline("nothing", BY_NAME["float16"], (0, 4)),
    Outline("mask", BY_NAME["bool"], (7,)),
]

names = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S"), exclude_characters="/"), min_size=1)
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
dtypes = st.sampled_from(sorted(RTFX_CODES)).map(BY_NAME.__getitem__)
outlines = st.lists(st.builds(Outline, names, dtypes, shapes), max_size=12, unique_by=lambda outline: outline.key)
plain = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5)
# Keys without dots: two paths that join to the same key are refused.
keys = st.text("abc_0", min_size=1, max_size=4)
tables = st.dictionaries(keys, st.recursive(plain, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v)))


def assembled(layout: FileLayout, tensors: dict[str, bytes], path: Path) -> Path:
    """The file that a layout and the tensors' bytes make."""
    with path.open("wb") as file:
        file.truncate(layout.size)
        for offset, data in [*layout.frame, *((layout.slots[key].offset, data) for key, data in tensors.items())]:
            file.seek(offset)
            file.write(data)
    return path


def some_bytes(outline: Outline) -> bytes:
    data = random.Random(outline.key).randbytes(outline.nbytes)
    return bytes(byte & 1 for byte in data) if outline.dtype.name == "bool" else data


@settings(max_examples=60, deadline=None)
@given(outlines=outlines, metadata=tables)
def test_h5py_reads_every_tensor_and_torch_the_nesting(
    outlines: list[Outline], metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from torch.utils._pytree import tree_unflatten, treespec_loads

    tensors = {outline.key: some_bytes(outline) for outline in outlines}
    path = assembled(lay_out("x.mdl", outlines, metadata), tensors, tmp_path_factory.mktemp("mdl") / "x.mdl")
    with h5py.File(path, "r") as file:
        assert set(file) == {f"model.{key}" for key in tensors}
        for key, data in tensors.items():
            assert file[f"model.{key}"][()].tobytes() == data

        spec = treespec_loads(json.loads(file.attrs["__spec__"])[1])
        positions = tree_unflatten(range(spec.num_leaves), spec)
        assert list(positions) == ["model", "__metadata__"]
        assert list(positions["model"]) == list(tensors)
        flattened = list(flat({"model": dict.fromkeys(tensors), "__metadata__": [metadata]}))
        assert [name for name in file.attrs if name.endswith(".__metadata__")] == sorted(
            f"{key}.__metadata__" for key, _ in flattened
        )
        described = [json.loads(file.attrs[f"{key}.__metadata__"])[f"{key}.__metadata__"] for key, _ in flattened]
        values = [d.get("scalar_value", d.get("string_value")) for d in described]
        assert tree_unflatten(values, spec)["__metadata__"] == [metadata]


def flat(node: Any, key: str = "") -> Any:
    """The leaves of nested dictionaries and lists by their path, joined with dots."""
    if not isinstance(node, dict | list):
        yield key, node
        return
    for name, child in node.items() if isinstance(node, dict) else enumerate(node):
        yield from flat(child, f"{key}.{name}" if key else str(name))


def test_root_says_version_and_success(tmp_path: Path) -> None:
    with h5py.File(assembled(lay_out("x.mdl", OUTLINES, ENTRY), {}, tmp_path / "x.mdl")) as file:
        assert file.userblock_size == 0
        assert (file.attrs["__version__"], file.attrs["__version__"].dtype) == (0.5, np.dtype("f8"))
        assert file.attrs["__cstorch_version__"] == "2.10.0"
        assert file.attrs["__SUCCESS__"] is np.True_


def test_dataset_attributes_are_those_of_the_reference(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "golden/mdl/rich.mdl"
    outlines = [
        Outline("bf16", BY_NAME["bfloat16"], (3, 4)),
        Outline("bool", BY_NAME["bool"], (2,)),
        Outline("scalar0d_f32", BY_NAME["float32"], ()),
        Outline("empty", BY_NAME["float32"], (0, 4)),
    ]
    path = assembled(lay_out("x.mdl", outlines, {}), {}, tmp_path / "x.mdl")
    with h5py.File(path) as ours, h5py.File(golden) as theirs:
        for outline in outlines:
            key = f"model.{outline.key}"
            assert ours[key].dtype == theirs[key].dtype
            assert ours[key].shape == theirs[key].shape
            assert attributes(ours[key]) == attributes(theirs[key])
            leaf = f"{key}.__metadata__"
            assert json.loads(ours.attrs[leaf])[leaf] == json.loads(theirs.attrs[leaf])[leaf]


def attributes(dataset: Any) -> dict[str, Any]:
    """Name, HDF5 type, shape and value of each attribute."""
    opened = {name: dataset.attrs.get_id(name) for name in dataset.attrs}
    return {
        name: (str(found.dtype), found.shape, np.asarray(dataset.attrs[name]).tolist())
        for name, found in opened.items()
    }


def test_description_of_one_leaf_names_it(tmp_path: Path) -> None:
    with h5py.File(assembled(lay_out("x.mdl", OUTLINES, ENTRY), {}, tmp_path / "x.mdl")) as file:
        document = json.loads(file.attrs["__metadata__.0.params.units.1.__metadata__"])
    key = "__metadata__.0.params.units.1"
    assert document["__objects__"] == [key]
    assert document[f"{key}.__metadata__"] == {"__TYPE__": "NoneSerializer", "__NONE__": True}
    assert json.loads(document["__spec__"][1])[1]["context"] == json.dumps([key])


def test_frame_leaves_slots_alone_and_slots_are_aligned() -> None:
    layout = lay_out("x.mdl", [Outline(f"t{i}", BY_NAME["uint8"], (i,)) for i in range(50)], ENTRY)
    slots = [(slot.offset, slot.nbytes) for slot in layout.slots.values() if slot.nbytes]
    ranges = sorted(slots + [(offset, len(data)) for offset, data in layout.frame])
    for (start, length), (following, _) in pairwise(ranges):
        assert start + length <= following
    assert sum(ranges[-1]) <= layout.size
    assert all(offset % 8 == 0 for offset, _ in slots)
    assert list(layout.frame) == sorted(layout.frame)


def test_same_arguments_give_the_same_bytes_later_and_in_another_process() -> None:
    def digest(layout: FileLayout) -> str:
        return hashlib.sha256(repr((layout.size, layout.frame, sorted(layout.slots.items()))).encode()).hexdigest()

    first = lay_out("x.mdl", OUTLINES, ENTRY)
    time.sleep(1.1)  # time stamps in HDF5 are seconds
    assert lay_out("x.mdl", OUTLINES, ENTRY) == first
    program = f"""
import hashlib
from mmconvert.containers.layout import Outline
from mmconvert.containers.mdl_write import lay_out
from mmconvert.dtypes import DType
layout = lay_out("x.mdl", {OUTLINES!r}, {ENTRY!r})
print(hashlib.sha256(repr((layout.size, layout.frame, sorted(layout.slots.items()))).encode()).hexdigest())
"""
    program = program.replace("Slot", "mmconvert.containers.layout.Slot")
    other = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(first)


def test_terabytes_are_laid_out_in_a_small_frame() -> None:
    outlines = [Outline(f"layers.{i}.weight", BY_NAME["float32"], (1 << 17, 1 << 17)) for i in range(100)]
    layout = lay_out("x.mdl", outlines, ENTRY)
    assert layout.size > sum(outline.nbytes for outline in outlines) == 100 * 4 * prod((1 << 17, 1 << 17))
    assert sum(len(data) for _, data in layout.frame) < 1 << 20


def test_empty_tensor_has_an_empty_slot() -> None:
    assert lay_out("x.mdl", OUTLINES, {}).slots["nothing"].nbytes == 0


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn", "float8_e5m2"])
def test_element_types_the_format_cannot_hold_are_refused(dtype: str) -> None:
    with pytest.raises(InputRefused, match=rf"w\.q: .* {dtype}; .*--container safetensors"):
        lay_out("x.mdl", [Outline("w.q", BY_NAME[dtype], (2,))], {})


@pytest.mark.parametrize("key", ["", "a/b", "a\0b", "a\nb", "\udc80"])
def test_names_the_format_cannot_hold_are_refused(key: str) -> None:
    with pytest.raises(InputRefused, match="of this name"):
        lay_out("x.mdl", [Outline(key, BY_NAME["bool"], ())], {})


def test_metadata_whose_paths_collide_is_refused() -> None:
    with pytest.raises(InputRefused, match=r"__metadata__\.0\.a\.b"):
        lay_out("x.mdl", [], {"a": {"b": 1}, "a.b": 2})
