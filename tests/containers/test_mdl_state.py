"""A `.mdl` file holds any nesting, and gives it back as it was; what it cannot hold is refused by its key."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmconvert.containers import mdl_read
from mmconvert.containers.layout import Outline
from mmconvert.containers.mdl_child import read
from mmconvert.containers.mdl_read import read_state
from mmconvert.containers.mdl_write import INT_BITS, MAX_DEPTH, MAX_KEY, flattened, lay_out, lay_out_state
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused
from mmconvert.sources import TensorRef

GOLDEN = Path(__file__).parents[1] / "golden/mdl"
T = Outline("whatever", BY_NAME["float32"], (2,))
BYTES = np.array([1.5, -2.0], "<f4").tobytes()


def write(path: Path, state: dict[str, Any]) -> Path:
    """A file of `state`, every tensor of which is `T` and holds `BYTES`."""
    layout = lay_out_state(path.name, state)
    with path.open("wb") as file:
        file.truncate(layout.size)
        for offset, data in [*layout.frame, *((slot.offset, BYTES) for slot in layout.slots.values())]:
            file.seek(offset)
            file.write(data)
    return path


def deep(levels: int, leaf: Any = 1) -> Any:
    for _ in range(levels):
        leaf = [leaf]
    return leaf


def test_leaves_are_flattened_in_order_with_keys_joined_by_dots() -> None:
    state = {"b": {"x.y": 1, "": 2}, "a": [3, [4, {}], []], "e": {}}
    assert list(flattened(state)) == [("b.x.y", 1), ("b.", 2), ("a.0", 3), ("a.1.0", 4)]


def test_conversions_lay_out_one_state_among_others() -> None:
    outlines = [Outline("a.weight", BY_NAME["bfloat16"], (3, 5)), Outline("b", BY_NAME["bool"], ())]
    state = {"model": {each.key: each for each in outlines}, "__metadata__": [{"lr": 0.5}]}
    whole, model = lay_out_state("x.mdl", state), lay_out("x.mdl", outlines, {"lr": 0.5})
    assert (whole.size, whole.frame) == (model.size, model.frame)
    assert whole.slots == {f"model.{key}": slot for key, slot in model.slots.items()}
    assert list(model.slots) == ["a.weight", "b"]


def test_torch_and_h5py_read_the_nesting_and_the_tensors(tmp_path: Path) -> None:
    from torch.utils._pytree import tree_unflatten, treespec_loads

    state = {"rng": [T, {"cuda": [T]}], "empty": {}, "none": None, "list": [], "model": {"w": T}, "step": 3}
    with h5py.File(write(tmp_path / "x.mdl", state)) as file:
        assert sorted(file) == ["model.w", "rng.0", "rng.1.cuda.0"]
        assert all(file[key][()].tobytes() == BYTES and file[key].attrs["__NUMPY__"] for key in file)
        spec = treespec_loads(json.loads(file.attrs["__spec__"])[1])
    keys = [key for key, _ in flattened(state)]
    expected = {"rng": ["rng.0", {"cuda": ["rng.1.cuda.0"]}], "empty": {}, "none": "none", "list": []}
    assert tree_unflatten(keys, spec) == {**expected, "model": {"w": "model.w"}, "step": "step"}


@pytest.mark.parametrize("levels", [0, MAX_DEPTH - 1])
def test_what_is_nested_as_deep_as_may_be_is_read_back(levels: int, tmp_path: Path) -> None:
    assert read_state(write(tmp_path / "x.mdl", {"a": deep(levels)})) == {"a": deep(levels)}
    assert read_state(write(tmp_path / "x.mdl", {"a": deep(levels, {})})) == {"a": deep(levels, {})}


def test_numbers_keep_their_size_and_text_its_half_characters(tmp_path: Path) -> None:
    values = [2**INT_BITS - 1, -(2**64), float("inf"), -0.0, 5e-324, 0.1, "\0\ud800é\n", "", True, 1, 1.0]
    found = read_state(write(tmp_path / "x.mdl", {"v": values, "nan": float("nan")}))
    assert repr(found) == repr({"v": values, "nan": float("nan")})


def test_a_name_may_be_as_long_as_hdf5_lets_it_be(tmp_path: Path) -> None:
    state = {"k" * MAX_KEY: 1, "é" * (MAX_KEY // 2): 2}
    assert read_state(write(tmp_path / "x.mdl", state)) == state


CYCLE: dict[str, Any] = {}
CYCLE["a"] = [CYCLE]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a": {"b": 1}, "a.b": 2}, r"a\.b: two entries"),
        ({"a": [T], "a.0": T}, r"a\.0: two entries"),
        ({"a": {"b.c": None}, "a.b": {"c": T}}, r"a\.b\.c: two entries"),
        ({"a": {"b": object()}}, r"a\.b: .* cannot hold a object"),
        ({"a": [(1, 2)]}, r"a\.0: .* cannot hold a tuple"),
        ({"a": b""}, "a: .* cannot hold a bytes"),
        ({"a": np.float64(1)}, "a: .* cannot hold a float64"),
        ({"a": np.zeros(2)}, "a: .* cannot hold a ndarray, only a TensorRef, None"),
        ({"a": {1, 2}}, "a: .* cannot hold a set"),
        ({"a": 1j}, "a: .* cannot hold a complex"),
        ({"a": -(2**INT_BITS)}, "a: .* integer of more than"),
        ({"a": {"b": Outline("", BY_NAME["int8"], ())}}, r"a\.b: .* cannot hold int8"),
        ({"a": {"b/c": T}}, r"'a\.b/c': .* tensor of this name"),
        ({"a/b": [T]}, r"'a/b\.0': .* tensor of this name"),
        ({"a\n": T}, "tensor of this name"),
        ({".": T}, r"'\.': .* tensor of this name"),
        ({"": {"a": 1}}, "'': .* entry of this name"),
        ({"a": {"b\0c": 1}}, r"'a\.b.*c': .* entry of this name"),
        ({"\ud800": 1}, "entry of this name"),
        ({"k" * (MAX_KEY + 1): 1}, "k': .* entry of this name"),
        ({"a": deep(MAX_DEPTH)}, "a.0.0.*nested more than 64"),
        ({"a": deep(MAX_DEPTH, {})}, "nested more than 64"),
        (CYCLE, "a.0.a.0.*nested more than 64"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_by_its_key(state: dict[str, Any], said: str) -> None:
    with pytest.raises(InputRefused, match=said) as refusal:
        lay_out_state("x.mdl", state)
    assert len(str(refusal.value)) < 200


def test_a_slash_in_the_name_of_a_plain_value_is_no_path(tmp_path: Path) -> None:
    state = {"files": {"/data/a.jsonl": 3, "b\n": None, "..": 1}}
    assert read_state(write(tmp_path / "x.mdl", state)) == state


def test_other_programs_files_are_read_with_links_resolved() -> None:
    state = read_state(GOLDEN / "plain_written_with_h5py.mdl")
    assert list(state)[:3] == ["model", "global_step", "lr"]
    assert isinstance(state["tup"], list)
    assert state["model"]["x.weight"].key == "model.x.weight"

    state = read_state(GOLDEN / "mmsimple_trainer_checkpoint_3.mdl")
    assert list(state) == ["model", "optimizer", "lr_scheduler", "global_step", "__metadata__"]
    assert state["lr_scheduler"] == [{"last_epoch": 3}]
    # The second 48 is a link in the file.
    model = state["__metadata__"][0]["params"]["trainer"]["init"]["model"]
    assert model["image_model_list"]["global_image_projection"]["layers_units"] == [48, 48]
    moments = state["optimizer"]["state"]
    assert all(isinstance(each, TensorRef) for slots in moments.values() for each in slots.values())
    ref = next(iter(moments.values()))["exp_avg"]
    assert len(ref.read()) == ref.nbytes > 0


def without_objects(file: Any) -> None:
    for key in ("np", "npint", "obj", "bytes"):
        file.attrs[f"{key}.__metadata__"] = json.dumps({f"{key}.__metadata__": {"__TYPE__": "NoneSerializer"}})


def test_links_lead_to_values_and_tensors_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "rich.mdl"
    path.write_bytes((GOLDEN / "rich.mdl").read_bytes())
    with h5py.File(path, "r+") as file:
        without_objects(file)
    state = read_state(path)
    model, optimizer = state["model"], state["optimizer"]
    assert (model["tied.weight"].key, model["tied.weight"].read()) == ("model.tied.weight", model["a.weight"].read())
    assert optimizer["param_groups"][0] == {
        "lr": 0.1,
        "betas": [0.9, 0.95],
        "foreach": None,
        "amsgrad": False,
        "params": [0, 1],
    }
    assert list(optimizer["state"]) == ["0"]
    assert (state["none"], state["od"], state["aset"], state["flag"]) == (None, {"x": 1, "y": 2}, [3], True)
    assert (state["emptydict"], state["emptylist"], state["text"]) == ({}, [], "hello é")


def of(file: Any, key: str, kind: str, /, **more: Any) -> None:
    file.attrs[f"{key}.__metadata__"] = json.dumps({f"{key}.__metadata__": {"__TYPE__": kind, **more}})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: of(file, "a.b", "ObjectSerializer"), r"a\.b: a pickled Python object, which is never loaded"),
        (lambda file: of(file, "a.b", "DeferredGraphTensor"), r"a\.b: a DeferredGraphTensor, which is not read"),
        (lambda file: of(file, "a.b", "LinkedObject", key="gone"), r"a\.b, linked to gone: .* does not have it"),
        (lambda file: of(file, "a.b", "LinkedObject", key="a.b"), r"a\.b: linked to a\.b, which is a link itself"),
        (lambda file: of(file, "a.b", "ScalarSerializer"), r"a\.b: .* no scalar_value"),
        (lambda file: of(file, "a.b", "ScalarSerializer", scalar_value=[1]), "a list where a value belongs"),
        (lambda file: file.attrs.__delitem__("__SUCCESS__"), "partially written"),
        (lambda file: file.attrs.__delitem__("a.b.__metadata__"), r"a\.b: .* does not have it"),
        (lambda file: file.__delitem__("t"), "t: the file describes it but does not have its data"),
    ],
)
def test_damaged_and_hostile_files_are_refused_by_key(damage: Callable[[Any], None], said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.mdl", {"a": {"b": 1}, "t": T})
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(InputRefused, match=rf"bad\.mdl: .*{said}"):
        read_state(path)


def test_pickles_of_the_reference_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "rich.mdl"
    path.write_bytes((GOLDEN / "rich.mdl").read_bytes())
    with pytest.raises(InputRefused, match=r"rich\.mdl: np: a NumpyArraySerializer, which is not read"):
        read_state(path)
    with h5py.File(path, "r+") as file:
        of(file, "np", "NoneSerializer")
    with pytest.raises(InputRefused, match=r"rich\.mdl: npint: a pickled Python object, which is never loaded"):
        read_state(path)


def test_formats_whose_nesting_is_a_pickle_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "old.mdl", "w") as file:
        file.attrs["__version__"] = 0.4
    with pytest.raises(InputRefused, match=r"old\.mdl: a format before 0\.5, whose nesting is a pickle"):
        read_state(tmp_path / "old.mdl")


def test_a_tensor_that_is_one_value_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mdl", {"a": [T]})
    with h5py.File(path, "r+") as file:
        of(file, "a.0", "DeferredFullTensor", shape=[3], dtype="torch.uint8", fill_value=7)
    assert read_state(path)["a"][0].read() == b"\7\7\7"


TENSOR = {"key": "w", "dtype": "float32", "shape": [2], "offset": 0}


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        5,
        ["dict"],
        ["list", []],
        ["value", 1],
        ["dict", []],
        ["dict", {"a": 1}],
        ["dict", {"a": ["value", {}]}],
        ["dict", {"a": ["other", [1]]}],
        ["dict", {"a": ["tensor", {}]}],
        ["dict", {"a": ["tensor", TENSOR | {"offset": 1 << 40}]}],
        ["dict", {"a": ["tensor", TENSOR | {"shape": [-2]}]}],
    ],
)
def test_the_process_is_not_believed(state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.mdl", {})
    monkeypatch.setattr(mdl_read, "_ask", lambda path, size, timeout, what: json.dumps({"state": state}).encode())
    with pytest.raises(InputRefused, match=r"x\.mdl: "):
        read_state(path)


def test_an_ordered_dictionary_is_a_dictionary(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mdl", {"b": OrderedDict(z=1, a=2)})
    assert read(str(path), "state") == {"state": ["dict", {"b": ["dict", {"z": ["value", 1], "a": ["value", 2]}]}]}
