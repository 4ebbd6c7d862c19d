"""A foreign file is opened without importing, running or opening anything that it names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmconvert.containers import mdl_child
from mmconvert.containers.layout import Outline
from mmconvert.containers.mdl_child import Node, parse_treespec, read
from mmconvert.containers.mdl_write import MAX_DEPTH, lay_out
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused

# Of this process: the seconds that it may take, and the bytes that it may take beyond those that it has.
SHOW_LIMITS = """
import json, resource, sys
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
print(json.dumps([resource.getrlimit(resource.RLIMIT_CPU)[0], resource.getrlimit(resource.RLIMIT_AS)[0] - taken]))
"""
LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}


def node(kind: str | None, context: str | None, *children: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "context": context, "children_spec": list(children)}


def parse(root: Any) -> Node:
    return parse_treespec(json.dumps([1, root]))


def test_what_torch_writes_is_read_with_keys_in_order() -> None:
    from torch.utils._pytree import tree_structure, treespec_dumps

    state = {"model": OrderedDict({"b.weight": 1, "a": 2}), "state": {0: {"step": 3}}, "l": [4, (5, {})], "empty": []}
    root = parse_treespec(treespec_dumps(tree_structure(state)))
    assert list(root.leaves()) == ["model.b.weight", "model.a", "state.0.step", "l.0", "l.1.0"]
    assert root.items["model"].type == "collections.OrderedDict"
    assert root.items["empty"].children == ()


def test_leaves_below_a_node_carry_its_key() -> None:
    root = parse(node("builtins.set", "null", LEAF, LEAF))
    assert list(root.leaves("model")) == ["model.0", "model.1"]


def test_one_leaf_is_a_nesting() -> None:
    assert parse(LEAF).is_leaf


@pytest.mark.parametrize(
    "kind",
    [
        "collections.defaultdict",
        "os.system",
        "cerebras.appliance.storage.serializers.NestedObject",
        "builtins.dict ",
        "",
    ],
)
def test_other_types_are_refused_by_name_and_key(kind: str) -> None:
    inner = node(kind, '["builtins.eval", ["k"]]', LEAF)
    with pytest.raises(InputRefused, match=rf"{kind}' at 'a'"):
        parse(node("builtins.dict", '["a"]', inner))


@pytest.mark.parametrize(
    "root",
    [
        None,
        [],
        {},
        "text",
        {"type": None},
        node(None, None, LEAF),
        node(None, '["a"]'),
        node("builtins.dict", '["a", "b"]', LEAF),
        node("builtins.dict", '["a", "a"]', LEAF, LEAF),
        node("builtins.dict", "null", LEAF),
        node("builtins.dict", "{", LEAF),
        node("builtins.dict", None, LEAF),
        node("builtins.list", "null", 3),  # type: ignore[arg-type]
        {"type": "builtins.list", "context": "null", "children_spec": None},
        {"type": ["builtins.list"], "context": "null", "children_spec": []},
    ],
)
def test_damaged_nesting_is_refused(root: Any) -> None:
    with pytest.raises(InputRefused, match="__spec__"):
        parse(root)


@pytest.mark.parametrize("text", ["", "null", "[1]", "[2, {}]", "[1, {}, {}]", "[" * 100_000, '{"a": 1, "b": 2}'])
def test_what_is_no_treespec_is_refused(text: str) -> None:
    with pytest.raises(InputRefused, match="__spec__"):
        parse_treespec(text)


def test_depth_is_bounded() -> None:
    root = LEAF
    for _ in range(MAX_DEPTH):
        root = node("builtins.list", "null", root)
    assert list(parse(root).leaves()) == [".".join("0" * MAX_DEPTH)]
    with pytest.raises(InputRefused, match="levels deep"):
        parse(node("builtins.list", "null", root))


W = np.arange(24, dtype="<f4").reshape(4, 6)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint with the model tensors `w` and `v`, all zeros, to be damaged."""
    path = tmp_path / "checkpoint.mdl"
    layout = lay_out(path.name, [Outline(key, BY_NAME["float32"], (4, 6)) for key in ("w", "v")], {})
    with path.open("wb") as file:
        file.truncate(layout.size)
        for offset, data in layout.frame:
            file.seek(offset)
            file.write(data)
    return path


def describe(file: Any, key: str, /, **described: Any) -> None:
    file.attrs[f"{key}.__metadata__"] = json.dumps({f"{key}.__metadata__": described})


def nest(file: Any, root: dict[str, Any]) -> None:
    file.attrs["__spec__"] = json.dumps([None, json.dumps([1, root])])


def stored_again(file: Any, key: str, **how: Any) -> Any:
    """The dataset `key` made anew with h5py, its attributes kept away."""
    del file[key]
    return file.create_dataset(key, **how)


def test_where_tensors_lie_is_all_that_is_read(checkpoint: Path) -> None:
    document = read(str(checkpoint))
    with h5py.File(checkpoint) as file:
        offset = file["model.w"].id.get_offset()
    assert document["tensors"][0] == {"key": "w", "dtype": "float32", "shape": [4, 6], "offset": offset}
    assert (document["metadata"], document["set_aside"]) == ([{}], {})


def partial(file: Any) -> None:
    del file.attrs["__SUCCESS__"]


def unfinished(file: Any) -> None:
    file.attrs["__SUCCESS__"] = False


def without_version(file: Any) -> None:
    del file.attrs["__version__"]


def older_version(file: Any) -> None:
    file.attrs["__version__"] = 0.4


def version_as_array(file: Any) -> None:
    file.attrs["__version__"] = [0.5, 0.5]


def soft_link(file: Any) -> None:
    del file["model.w"]
    file["model.w"] = h5py.SoftLink("/model.v")


def external_link(file: Any) -> None:
    del file["model.w"]
    file["model.w"] = h5py.ExternalLink("/etc/passwd", "model.w")


def external_storage(file: Any) -> None:
    stored_again(file, "model.w", shape=(4, 6), dtype="<f4", external=[("/etc/passwd", 0, 96)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4, 6), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "w", (4, 6))
    del file["model.w"]
    file.create_virtual_dataset("model.w", layout)


def pickled(file: Any) -> None:
    describe(file, "model.w", __TYPE__="ObjectSerializer")


def graph(file: Any) -> None:
    describe(file, "model.w", __TYPE__="DeferredGraphTensor")


def unknown(file: Any) -> None:
    describe(file, "model.w", __TYPE__="FutureSerializer")


def dangling(file: Any) -> None:
    describe(file, "model.w", __TYPE__="LinkedObject", key="model.gone")


def cyclic(file: Any) -> None:
    describe(file, "model.w", __TYPE__="LinkedObject", key="model.w")


def other_shape(file: Any) -> None:
    stored_again(file, "model.w", data=W.T)


def other_dtype(file: Any) -> None:
    stored_again(file, "model.w", data=W.view("<i4"))


def big_endian(file: Any) -> None:
    stored_again(file, "model.w", data=W.astype(">f4"))


def no_data(file: Any) -> None:
    del file["model.w"]


def never_written(file: Any) -> None:
    stored_again(file, "model.w", shape=(4, 6), dtype="<f4")


def not_described(file: Any) -> None:
    del file.attrs["model.w.__metadata__"]


def bad_description(file: Any) -> None:
    file.attrs["model.w.__metadata__"] = "{"


def no_nesting(file: Any) -> None:
    del file.attrs["__spec__"]


def runs_code(file: Any) -> None:
    nest(file, node("os.system", '["model"]', LEAF))


def nested_object(file: Any) -> None:
    nest(file, node("builtins.dict", '["thing"]', node("cerebras.NestedObject", "[]")))


def list_at_the_top(file: Any) -> None:
    nest(file, node("builtins.list", "null", LEAF))


def colliding(file: Any) -> None:
    nest(file, node("builtins.dict", '["model", "model.w"]', node("builtins.dict", '["w"]', LEAF), LEAF))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (partial, "partially written"),
        (unfinished, "partially written"),
        (without_version, "it has no __version__, but __SUCCESS__"),
        (older_version, "it has checkpoint format 0.4, but __SUCCESS__"),
        (version_as_array, "__version__: not one string or number"),
        (soft_link, "model.w: a soft or external link"),
        (external_link, "model.w: a soft or external link"),
        (external_storage, "model.w: its data lies in another file"),
        (virtual, "model.w: its data lies in another file"),
        (pickled, "model.w: the model has a ObjectSerializer"),
        (graph, "model.w: the model has a DeferredGraphTensor"),
        (unknown, "model.w: the model has a FutureSerializer"),
        (dangling, "model.w, linked to model.gone: the file names it but does not have it"),
        (cyclic, "model.w: linked to model.w, which is a link itself"),
        (other_shape, r"model.w: described as \[4, 6\] but stored as \(6, 4\)"),
        (other_dtype, "model.w: described as torch.float32 but stored as int32"),
        (big_endian, "model.w: described as torch.float32 but stored as >f4"),
        (no_data, "model.w: the file describes it"),
        (never_written, "model.w: its data was never written"),
        (not_described, "model.w: the file names it but does not have it"),
        (bad_description, "model.w: its description is damaged"),
        (no_nesting, "__spec__ is missing"),
        (runs_code, "os.system"),
        (nested_object, "NestedObject' at 'thing'"),
        (list_at_the_top, "does not hold a dictionary"),
        (colliding, "same flattened key"),
    ],
)
def test_hostile_and_damaged_files_are_refused_by_key(
    checkpoint: Path, damage: Callable[[Any], None], said: str
) -> None:
    with h5py.File(checkpoint, "r+") as file:
        damage(file)
    with pytest.raises(InputRefused, match=said):
        read(str(checkpoint))


def test_a_small_file_may_take_little_and_a_large_one_more(tmp_path: Path) -> None:
    limits = []
    for size in (1000, 140 * 10**9):
        path = tmp_path / f"{size}.mdl"
        with path.open("wb") as file:
            file.truncate(size)
        script = f"from mmconvert.containers import mdl_child; mdl_child._limit({str(path)!r})\n{SHOW_LIMITS}"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        limits.append(json.loads(done.stdout))
    (small_cpu, small_room), (large_cpu, large_room) = limits
    assert (small_cpu, large_cpu) == (3, 120)
    if sys.platform == "linux":
        assert 120e6 < small_room < 135e6
        assert 4e9 < large_room < 5e9


@pytest.mark.parametrize(
    ("error", "said"),
    [(MemoryError(), "takes more memory to read"), (KeyError(), "cannot be read: KeyError"), (OSError("x"), "read: x")],
)
def test_whatever_a_file_does_to_hdf5_is_said_of_the_file(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(path: str, what: str) -> None:
        raise error

    monkeypatch.setattr(mdl_child, "_limit", lambda path: None)
    monkeypatch.setattr(mdl_child, "read", fail)
    mdl_child.main(str(checkpoint))
    assert said in json.loads(capsys.readouterr().out)["refused"]
