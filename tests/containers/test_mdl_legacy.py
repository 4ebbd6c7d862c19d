"""Checkpoints of formats before 0.5 are read byte for byte; what they pickle, name or link to is left alone."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h5py
import lz4.block
import numpy as np
import pytest

from mmconvert.containers.mdl_read import MdlFile, read_file
from mmconvert.errors import InputRefused

W = np.arange(24, dtype="<f4").reshape(4, 6)
BITS = np.array([0x3F80, -0x4000, 0x7FC0], "<i2")
# By name: the element type, what h5py is given, and how it stores that.
STORED: dict[str, tuple[str, np.ndarray, dict[str, Any]]] = {
    "bf16": ("bfloat16", BITS, {}),
    "bool": ("bool", np.array([True, False]), {}),
    "chunked": ("float32", W, {"chunks": (3, 4), "compression": "gzip"}),
    "contiguous": ("float32", W, {}),
    "empty": ("float16", np.empty((0, 3), "<f2"), {"chunks": (1, 3), "maxshape": (None, 3)}),
    "fp16": ("float16", W.astype("<f2"), {"compression": "gzip"}),
    "half_bits": ("bfloat16", BITS.view("<u2"), {"chunks": (2,)}),
    "step": ("int64", np.array(7, "<i8"), {}),
}


class Poison:
    """An object whose pickle, when it is loaded, makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.marker), "w")


def store(file: Any, key: str, array: np.ndarray, tag: str | None = "TorchTensorH5Type", /, **how: Any) -> Any:
    """A tensor that stands in the file itself."""
    dataset = file.create_dataset(quote(key, safe=""), data=array, **how)
    if tag:
        dataset.attrs["__H5_TYPE__"] = tag
    return dataset


def say(file: Any, key: str, tag: str | None, dtype: str = "<f4", /, **said: Any) -> None:
    """A leaf that is told by attributes alone."""
    dataset = file.create_dataset(quote(key, safe=""), data=h5py.Empty(dtype))
    dataset.attrs.update(({"__H5_TYPE__": tag} if tag else {}) | said)


def full(file: Any, key: str, shape: tuple[int, ...] = (2, 3), fill: Any = 0.5, /, **said: Any) -> None:
    say(file, key, "DeferredFullTensor", **{"shape": shape, "fill_value": fill, "is_bfloat16": False} | said)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint of format 0.4 with the model tensor `w`, to be added to."""
    path = tmp_path / "old.mdl"
    with h5py.File(path, "w") as file:
        file.attrs["__version__"] = 0.4
        file.attrs["__spec__"] = pickle.dumps(Poison(tmp_path / "executed")).hex()
        store(file, "model.w", W)
    return path


def read(path: Path, *add: Callable[[Any], object]) -> MdlFile:
    """What is found once `add` was done to the file."""
    with h5py.File(path, "r+") as file:
        for each in add:
            each(file)
    return read_file(path)


@pytest.mark.parametrize(
    ("version", "tag", "release"),
    [
        (0.4, "TorchTensorH5Type", "2.0"),
        (0.3, "NumpyArrayH5Type", "1.9"),
        (0.3, "StoredTensorH5Type", "1.9"),
        (0.2, None, "1.8"),
        (0.1, None, "1.7"),
        (None, None, "1.7"),
    ],
)
def test_tensors_of_every_format_are_read_byte_for_byte(
    tmp_path: Path, version: float | None, tag: str | None, release: str
) -> None:
    path = tmp_path / "old.mdl"
    with h5py.File(path, "w") as file:
        file.attrs["__spec__"] = "80"
        if version is not None:
            file.attrs["__version__"] = version
        for name, (dtype, array, how) in reversed(STORED.items()):
            dataset = store(file, f"model.layers.0.{name}", array, tag, **how)
            dataset.attrs["is_bfloat16"] = dtype == "bfloat16"
    found = read_file(path, "old.mdl")
    assert list(found.tensors) == [f"layers.0.{name}" for name in STORED]
    for name, (dtype, array, _) in STORED.items():
        ref = found.tensors[f"layers.0.{name}"]
        assert (ref.dtype.name, ref.shape, ref.read()) == (dtype, array.shape, array.tobytes()), name
        assert ref.file == "old.mdl"
    assert (found.saved_by, found.metadata, found.set_aside) == (release, (), {})
    assert found.version == f"checkpoint format {version or 0.1}, cerebras_pytorch {release}"


def test_lz4_chunks_are_read(path: Path) -> None:
    ones = np.ones((4, 6), "<f4")

    def add(file: Any) -> None:
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((4, 6))
        created.set_filter(32004, h5py.h5z.FLAG_OPTIONAL, (0,))
        space = h5py.h5s.create_simple((4, 6))
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"model.v", h5py.h5t.IEEE_F32LE, space, created))
        dataset.attrs["__H5_TYPE__"] = "TorchTensorH5Type"
        block = lz4.block.compress(ones.tobytes(), store_size=False)
        dataset.id.write_direct_chunk((0, 0), struct.pack(">QII", ones.nbytes, ones.nbytes, len(block)) + block)

    assert read(path, add).tensors["v"].read() == ones.tobytes()


@pytest.mark.parametrize("key", ["a/b.weight", "a b%2F?é", "x.ffn.0", "../../w", "."])
def test_odd_keys_are_read_as_they_were_before_they_were_quoted(path: Path, key: str) -> None:
    found = read(path, lambda file: store(file, f"model.{key}", W + 1))
    assert list(found.tensors) == sorted([key, "w"], key=lambda name: quote(name, safe=""))
    assert found.tensors[key].read() == (W + 1).tobytes()


@pytest.mark.parametrize(
    ("stored", "said", "dtype", "expected"),
    [
        ("<f4", {"fill_value": 1.5}, "float32", struct.pack("<f", 1.5) * 6),
        ("<i2", {"fill_value": 1.0, "is_bfloat16": True}, "bfloat16", b"\x80\x3f" * 6),
        ("?", {"fill_value": True}, "bool", b"\1" * 6),
        ("<i8", {"fill_value": 3, "shape": ()}, "int64", struct.pack("<q", 3)),
        ("<f2", {"fill_value": 0.0, "shape": (2, 0)}, "float16", b""),
        ("<f4", {"fill_value": 2, "__H5_TYPE__": "FullTensorH5Type"}, "float32", struct.pack("<f", 2) * 6),
        ("<f4", {"fill_value": 0.5, "is_constructible": True}, "float32", struct.pack("<f", 0.5) * 6),
    ],
)
def test_tensors_of_one_value_are_that_value_throughout(
    path: Path, stored: str, said: dict[str, Any], dtype: str, expected: bytes
) -> None:
    shape = said.get("shape", (2, 3))
    tag = None if "is_constructible" in said else "DeferredFullTensor"
    ref = read(path, lambda file: say(file, "model.x", tag, stored, **{"shape": shape, **said})).tensors["x"]
    assert (ref.dtype.name, ref.shape, ref.read()) == (dtype, shape, expected)


@pytest.mark.parametrize(("tag", "said"), [("NoneH5Type", {}), (None, {"is_none": True})])
def test_none_in_place_of_a_tied_weight_is_set_aside(path: Path, tag: str | None, said: dict[str, Any]) -> None:
    found = read(path, lambda file: say(file, "model.lm_head.weight", tag, **said))
    assert list(found.tensors) == ["w"]
    assert found.set_aside == {
        "model.lm_head.weight": "None stands in its place: a tied weight, as older releases saved it"
    }


def test_plain_values_in_the_model_are_set_aside(path: Path) -> None:
    def add(file: Any) -> None:
        store(file, "model.number", np.array(0.5), "ScalarH5Type")
        say(file, "model.text", "StringH5Type", string_value="x")
        store(file, "model.old_number", np.array(1), None).attrs["is_scalar"] = True
        say(file, "model.old_text", None, is_string=True, string_val="x")

    found = read(path, add)
    assert list(found.tensors) == ["w"]
    names = ("model.number", "model.old_number", "model.old_text", "model.text")
    assert found.set_aside == dict.fromkeys(names, "a plain value, not a tensor")


def test_a_link_into_the_same_file_is_the_other_tensor(path: Path) -> None:
    def add(file: Any) -> None:
        store(file, "model.a/b", BITS).attrs["is_bfloat16"] = True
        say(file, "model.tied", "DeferredH5Tensor", key="model.a%2Fb", link_to_self=True)
        full(file, "model.full", fill_value=2)
        say(file, "model.like_full", "DeferredH5Tensor", key="model.full", link_to_self=True)

    tensors = read(path, add).tensors
    assert (tensors["tied"].dtype.name, tensors["tied"].read()) == ("bfloat16", BITS.tobytes())
    assert tensors["like_full"].read() == tensors["full"].read() == struct.pack("<f", 2) * 6


def soft_link(file: Any) -> None:
    file["model.x"] = h5py.SoftLink("/model.w")


def external_link(file: Any) -> None:
    file["model.x"] = h5py.ExternalLink("/etc/passwd", "model.x")


def external_storage(file: Any) -> None:
    store(file, "model.x", None, shape=(4, 6), dtype="<f4", external=[("/etc/passwd", 0, 96)])  # type: ignore[arg-type]


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4, 6), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "w", (4, 6))
    file.create_virtual_dataset("model.x", layout)


def group(file: Any) -> None:
    file.create_group("model.x")


def file_tensor(file: Any) -> None:
    say(file, "model.x", "DeferredFileTensor", filepath="/etc/passwd", shape=(4, 6), dtype="80")


def old_file_tensor(file: Any) -> None:
    say(file, "model.x", None, filepath="/etc/passwd", shape=(4, 6), dtype="80")


def tensor_of_other_file(file: Any) -> None:
    say(file, "model.x", "DeferredH5Tensor", key="model.w", filepath="/etc/passwd")


def graph(file: Any) -> None:
    say(file, "model.x", "DeferredGraphTensor", jit_graph="graph()", shape=(4, 6))


def pickled(file: Any) -> None:
    say(file, "model.x", "ObjectH5Type", object_value="80")


def unknown(file: Any) -> None:
    say(file, "model.x", "FutureH5Type")


def tag_as_array(file: Any) -> None:
    store(file, "model.x", W).attrs["__H5_TYPE__"] = ["TorchTensorH5Type"]


def dangling(file: Any) -> None:
    say(file, "model.x", "DeferredH5Tensor", key="model.gone", link_to_self=True)


def keyless(file: Any) -> None:
    say(file, "model.x", "DeferredH5Tensor", link_to_self=True)


def cyclic(file: Any) -> None:
    say(file, "model.x", "DeferredH5Tensor", key="model.x", link_to_self=True)


def chained(file: Any) -> None:
    say(file, "model.x", "DeferredH5Tensor", key="model.y", link_to_self=True)
    say(file, "model.y", "DeferredH5Tensor", key="model.w", link_to_self=True)


def link_to_soft_link(file: Any) -> None:
    file["else"] = h5py.SoftLink("/model.w")
    say(file, "model.x", "DeferredH5Tensor", key="else", link_to_self=True)


def link_to_pickle(file: Any) -> None:
    say(file, "else", "ObjectH5Type", object_value="80")
    say(file, "model.x", "DeferredH5Tensor", key="else", link_to_self=True)


def without_data(file: Any) -> None:
    say(file, "model.x", "TorchTensorH5Type")


def never_written(file: Any) -> None:
    store(file, "model.x", None, shape=(4, 6), dtype="<f4")  # type: ignore[arg-type]


def chunk_missing(file: Any) -> None:
    store(file, "model.x", None, shape=(4, 6), dtype="<f4", chunks=(2, 6))[:2] = W[:2]  # type: ignore[arg-type]


def wide_bfloat16(file: Any) -> None:
    store(file, "model.x", W).attrs["is_bfloat16"] = True


def big_endian(file: Any) -> None:
    store(file, "model.x", W.astype(">f4"))


def strings(file: Any) -> None:
    store(file, "model.x", np.array([b"a", b"b"]))


def full_of_nothing(file: Any) -> None:
    say(file, "model.x", "DeferredFullTensor", shape=(2, 3))


def full_of_text(file: Any) -> None:
    full(file, "model.x", (2, 3), "0")


def full_without_shape(file: Any) -> None:
    say(file, "model.x", "DeferredFullTensor", fill_value=0)


def full_of_fractions(file: Any) -> None:
    full(file, "model.x", shape=(0.5, 2.0))


def full_negative(file: Any) -> None:
    full(file, "model.x", shape=(-4, -6))


def full_absurd(file: Any) -> None:
    full(file, "model.x", shape=(1 << 20, 1 << 20))


def full_overflowing(file: Any) -> None:
    full(file, "model.x", shape=(1 << 62,) * 32)


def full_of_dimensions(file: Any) -> None:
    full(file, "model.x", shape=(1,) * 1000)


def full_one_number(file: Any) -> None:
    full(file, "model.x", shape=5)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (soft_link, "model.x: a soft or external link"),
        (external_link, "model.x: a soft or external link"),
        (external_storage, "model.x: its data lies in another file"),
        (virtual, "model.x: its data lies in another file"),
        (group, "model.x: cannot be read as a dataset"),
        (file_tensor, "model.x: the model has a DeferredFileTensor"),
        (old_file_tensor, "model.x: the model has a DeferredFileTensor"),
        (tensor_of_other_file, "model.x: the model has a DeferredH5Tensor"),
        (graph, "model.x: the model has a DeferredGraphTensor"),
        (pickled, "model.x: the model has a ObjectH5Type"),
        (unknown, "model.x: the model has a FutureH5Type"),
        (tag_as_array, "model.x: __H5_TYPE__: not one string or number"),
        (dangling, "model.x, linked to model.gone: the file describes it"),
        (keyless, "model.x, linked to None: the file describes it"),
        (cyclic, "model.x: linked to model.x, which is a link itself"),
        (chained, "model.x: linked to model.y, which is a link itself"),
        (link_to_soft_link, "model.x, linked to else: a soft or external link"),
        (link_to_pickle, "model.x, linked to else: the model has a ObjectH5Type"),
        (without_data, "model.x: is called a tensor but has no shape"),
        (never_written, "model.x: its data was never written"),
        (chunk_missing, "x: only 1 of its 2 chunks are there"),
        (wide_bfloat16, "model.x: described as bfloat16 but stored as float32"),
        (big_endian, "model.x: stored as >f4"),
        (strings, "model.x: stored as [|]S1"),
        (full_of_nothing, "model.x: is one value throughout, but has no fill_value"),
        (full_of_text, "where a number belongs"),
        (full_without_shape, "model.x: has no shape"),
        (full_of_fractions, "model.x: shape: not a list of sizes"),
        (full_negative, "-4 where a size belongs"),
        (full_absurd, "x: 4398046511104 bytes of one value, more than 64 GiB"),
        (full_overflowing, "x: [0-9]{500,} bytes of one value"),
        (full_of_dimensions, "model.x: shape: not a list of sizes"),
        (full_one_number, "model.x: shape: not a list of sizes"),
    ],
)
def test_hostile_and_damaged_leaves_of_the_model_are_refused_by_key(
    path: Path, damage: Callable[[Any], None], said: str
) -> None:
    with pytest.raises(InputRefused, match=rf"old\.mdl: .*{said}") as refusal:
        read(path, damage)
    assert len(str(refusal.value).splitlines()) == 1


def test_what_is_outside_the_model_is_set_aside_whatever_it_is(path: Path) -> None:
    def add(file: Any) -> None:
        store(file, "optimizer.state.0.exp_avg", W)
        say(file, "optimizer.state.1.exp_avg", "DeferredFileTensor", filepath="/etc/passwd", shape=(4, 6), dtype="80")
        say(file, "optimizer.state.2.exp_avg", "DeferredH5Tensor", key="w", filepath="/etc/passwd")
        file["optimizer.state.3.exp_avg"] = h5py.ExternalLink("/etc/passwd", "w")
        say(file, "dataloader.epoch", "ObjectH5Type", object_value="80")
        store(file, "global_step", np.array(3), "ScalarH5Type")
        file["a_link"] = h5py.SoftLink("/nowhere")
        file.create_group("a_group")

    found = read(path, add)
    assert list(found.tensors) == ["w"]
    assert found.set_aside == {
        **{f"optimizer.state.{at}.exp_avg": "optimizer state is not converted" for at in range(4)},
        "dataloader.epoch": "a pickled Python object, which is never loaded",
        "global_step": "not a part of the model",
        "a_link": "not a part of the model",
        "a_group": "not a part of the model",
    }


def test_the_strings_of_the_metadata_are_read_and_its_configs_set_aside(path: Path) -> None:
    def add(file: Any) -> None:
        for at in (0, 2, 10):
            say(file, f"__metadata__.{at}.version", "StringH5Type", string_value=f"2.{at}.0")
        say(file, "__metadata__.10.model_name", "StringH5Type", string_value="llama")
        say(file, "__metadata__.10.params.model.name", "StringH5Type", string_value="x")
        say(file, "__metadata__.10.pickled", "ObjectH5Type", object_value="80")

    found = read(path, add)
    assert found.metadata == ({"version": "2.0.0"}, {"version": "2.2.0"}, {"version": "2.10.0", "model_name": "llama"})
    assert found.set_aside == {
        "__metadata__.10.params.model.name": "a config whose nesting only a pickle tells, which is never loaded",
        "__metadata__.10.pickled": "a pickled Python object, which is never loaded",
    }


def test_without_a_model_scope_the_tensors_at_the_root_are_the_model(path: Path) -> None:
    def add(file: Any) -> None:
        file.move("model.w", "transformer_decoder.w")
        full(file, "bias")
        say(file, "lm_head.weight", "NoneH5Type")
        store(file, "global_step", np.array(3), "ScalarH5Type")
        store(file, "optimizer.state.0.exp_avg", W)
        store(file, "lr_scheduler._last_lr.0", W)
        store(file, "__bias.arg_0", W)

    found = read(path, add)
    assert list(found.tensors) == ["bias", "transformer_decoder.w"]
    assert found.tensors["transformer_decoder.w"].read() == W.tobytes()
    assert found.set_aside == {
        "__bias.arg_0": "not a part of the model",
        "global_step": "not a part of the model",
        "lm_head.weight": "None stands in its place: a tied weight, as older releases saved it",
        "lr_scheduler._last_lr.0": "not a part of the model",
        "optimizer.state.0.exp_avg": "optimizer state is not converted",
    }


def test_without_a_model_scope_hostile_leaves_are_refused_too(path: Path) -> None:
    def add(file: Any) -> None:
        file.move("model.w", "w")
        say(file, "v", "DeferredFileTensor", filepath="/etc/passwd", shape=(4, 6), dtype="80")

    with pytest.raises(InputRefused, match="v: the model has a DeferredFileTensor"):
        read(path, add)


@pytest.mark.parametrize(("said", "saved_by"), [("2.1.0", "2.1"), ("2.2.1+build", "2.2"), ("0.0.0-dev", "2.0")])
def test_a_release_that_is_named_is_the_one_that_saved_the_file(path: Path, said: str, saved_by: str) -> None:
    found = read(path, lambda file: file.attrs.update(__cstorch_version__=said))
    assert found.saved_by == saved_by
    assert found.version == f"checkpoint format 0.4, cerebras_pytorch {said}"


def test_no_pickle_is_loaded_anywhere(path: Path) -> None:
    marker = path.parent / "executed"
    poison = pickle.dumps(Poison(marker)).hex()
    pickle.loads(bytes.fromhex(poison)).close()
    marker.unlink()

    def add(file: Any) -> None:
        say(file, "optimizer.x", "ObjectH5Type", object_value=poison)
        say(file, "optimizer.y", "DeferredFileTensor", filepath="/etc/passwd", shape=(4, 6), dtype=poison)
        say(file, "__metadata__.0.version", "ObjectH5Type", object_value=poison)
        say(file, "x", "ApplianceInfoH5Type", object_value=poison)

    found = read(path, add)
    assert list(found.tensors) == ["w"]
    for key in ("optimizer.x", "__metadata__.0.version", "x"):
        assert found.set_aside[key] == "a pickled Python object, which is never loaded"
    with pytest.raises(InputRefused, match=r"model\.x"):
        read(path, lambda file: say(file, "model.x", "ObjectH5Type", object_value=poison))
    assert not marker.exists()


def test_two_names_of_one_key_are_refused(path: Path) -> None:
    with pytest.raises(InputRefused, match=r"model\.w: two of its entries have this key"):
        read(path, lambda file: file.move("model.w", "model%2Ew"), lambda file: store(file, "model.w", W))


@pytest.mark.parametrize("version", [0.0, 0.25, -1.0, float("nan"), "0.4"])
def test_a_format_that_never_was_is_refused(path: Path, version: Any) -> None:
    with pytest.raises(InputRefused, match=r"old\.mdl: checkpoint format .* is not known"):
        read(path, lambda file: file.attrs.update(__version__=version))


def test_a_newer_file_with_an_older_version_is_refused(path: Path) -> None:
    with pytest.raises(InputRefused, match=r"checkpoint format 0\.4, but __SUCCESS__"):
        read(path, lambda file: file.attrs.update(__SUCCESS__=True))


def bare(path: Path, **said: Any) -> Path:
    """An HDF5 file without `__version__` and `__spec__`, its one dataset having the given attributes."""
    with h5py.File(path, "w") as file:
        store(file, "model.w", W, None).attrs.update(said)
    return path


def test_what_has_nothing_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match=r"x\.h5: is no checkpoint"):
        read_file(bare(tmp_path / "x.h5", units="m"))


@pytest.mark.parametrize("said", [{"__H5_TYPE__": "TorchTensorH5Type"}, {"is_scalar": True}])
def test_a_dataset_of_a_checkpoint_makes_one(tmp_path: Path, said: dict[str, Any]) -> None:
    assert read_file(bare(tmp_path / "x.h5", **said)).saved_by == "1.7"
