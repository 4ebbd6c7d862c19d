"""A program's state is written as one file, whole or not at all, and comes back as it was."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmconvert import api, read_state, write_state
from mmconvert.containers import mdl_read
from mmconvert.containers.mdl_child import read
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import DiskError, InputRefused, OutputRefused
from mmconvert.sources import FileSpan, TensorRef
from tests.tensor_sources import Broken, Growing, Held

ROOT = Path(__file__).parents[1]
TRAINED = Path(__file__).parent / "golden/mdl/mmsimple_trainer_checkpoint_3.mdl"
BIG = 5 << 20


def held(data: bytes = bytes(range(8)), dtype: str = "uint8", shape: tuple[int, ...] | None = None) -> TensorRef:
    return TensorRef("", BY_NAME[dtype], (len(data),) if shape is None else shape, Held(data))


def told(node: Any) -> Any:
    """A nesting as something that is equal only to what is equal in types, order and every bit."""
    if isinstance(node, dict):
        return ["dict", *((name, told(child)) for name, child in node.items())]
    if isinstance(node, list):
        return ["list", *map(told, node)]
    if isinstance(node, TensorRef):
        return "tensor", node.dtype.name, node.shape, node.read()
    return type(node).__name__, repr(node)


STATE: dict[str, Any] = {
    "model": {"model.a.weight": held(), "b": held(bytes(4), "float32", ())},
    "optimizer": {"state": {"model.a.weight": {"exp_avg": held(bytes(range(6)), "bfloat16", (3, 1)), "step": 7}}},
    "schedulers": [{"last_epoch": 3, "base": [0.1, 1, True, None]}, {}, [], [[[]]]],
    "scaler": None,
    "rng": {"torch": held(bytes(5056)), "cuda": [held(b"\1"), held(b"", shape=(0, 2))], "numpy": [2**127, -1]},
    "best": float("inf"),
}
PATHS = st.characters(exclude_categories=("Cs", "Cc", "Cn"), exclude_characters="./")
TENSORS = st.sampled_from(["uint8", "bool", "bfloat16", "float32", "int64"]).flatmap(
    lambda dtype: st.lists(st.integers(0, 3), max_size=3).map(
        lambda shape: held(bytes(held(dtype=dtype, shape=tuple(shape)).nbytes), dtype, tuple(shape))
    )
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | TENSORS
# Two keys without a dot never make one path, and torch's keys are words.
KEYS = st.text("abc0é_ ", min_size=1, max_size=3)
NESTINGS = st.recursive(LEAVES, lambda v: st.lists(v, max_size=4) | st.dictionaries(KEYS, v, max_size=4), max_leaves=12)


@settings(max_examples=60, deadline=None)
@given(state=st.dictionaries(KEYS, NESTINGS, max_size=5))
def test_whatever_was_written_comes_back_equal(state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("state") / "state.mdl"
    write_state(path, state, fsync=False)
    with pytest.MonkeyPatch.context() as patch:
        # A process for each of many files would take long.
        patch.setattr(mdl_read, "_ask", lambda path, size, timeout, what: json.dumps(read(str(path), what)).encode())
        assert told(read_state(path)) == told(state)


def test_the_whole_way_through_files_and_processes(tmp_path: Path) -> None:
    write_state(tmp_path / "new" / "state.mdl", STATE)
    found = read_state(str(tmp_path / "new" / "state.mdl"))
    assert told(found) == told(STATE)
    assert found["rng"]["cuda"][0].key == "rng.cuda.0"
    assert found["rng"]["cuda"][0].where == str(tmp_path / "new" / "state.mdl")
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["state.mdl"]


def test_nothing_is_a_state(tmp_path: Path) -> None:
    write_state(tmp_path / "state.mdl", {})
    assert read_state(tmp_path / "state.mdl") == {}


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    write_state(tmp_path / "a.mdl", STATE)
    time.sleep(1.1)  # time stamps in HDF5 are seconds
    write_state(tmp_path / "b.mdl", read_state(tmp_path / "a.mdl"))
    assert (tmp_path / "a.mdl").read_bytes() == (tmp_path / "b.mdl").read_bytes()


def test_a_state_that_was_read_replaces_the_file_it_lies_in(tmp_path: Path) -> None:
    path = tmp_path / "state.mdl"
    data = random.Random(0).randbytes(BIG)
    write_state(path, {"x": held(b"y" * 100), "w": held(data)})
    write_state(path, {"new": ["first"] * 100, "w": read_state(path)["w"]}, overwrite=True)
    found = read_state(path)
    assert (list(found), found["w"].read()) == (["new", "w"], data)


def test_whoever_opens_a_file_that_was_replaced_reads_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "state.mdl"
    write_state(path, {"model": {"w": held(b"old")}})
    assert mdl_read.read_file(path).tensors["w"].read() == b"old"
    write_state(path, {"model": {"w": held(b"new")}}, overwrite=True)
    assert mdl_read.read_file(path).tensors["w"].read() == b"new"


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a": {"b": 1}, "a.b": held()}, r"a\.b: two entries"),
        ({"a": {"b": {1, 2}}}, r"a\.b: .* cannot hold a set"),
        ({"a": [held(dtype="int8")]}, r"a\.0: .* cannot hold int8"),
        ({"a": {"b/c": held()}}, r"a\.b/c.* of this name"),
        ({"a": [{0: held()}]}, r"a\.0: has the key 0, which is no string"),
        ({None: 1}, "the state: has the key None"),
        ({"a": held(), "b": TensorRef("b", BY_NAME["uint8"], (4,), Broken())}, "the tensor is gone"),
    ],
)
def test_a_refusal_leaves_the_old_file_and_nothing_else(state: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match=said):
        write_state(tmp_path / "sub" / "state.mdl", state)
    assert list(tmp_path.iterdir()) == []
    write_state(tmp_path / "state.mdl", {"old": held()})
    before = (tmp_path / "state.mdl").read_bytes()
    with pytest.raises(InputRefused, match=said):
        write_state(tmp_path / "state.mdl", state, overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == ["state.mdl"]
    assert (tmp_path / "state.mdl").read_bytes() == before


def test_a_state_that_holds_itself_is_refused(tmp_path: Path) -> None:
    state: dict[str, Any] = {"a": []}
    state["a"].append(state)
    with pytest.raises(InputRefused, match="nested more than 64 levels"):
        write_state(tmp_path / "state.mdl", state)


def test_a_source_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(16))
    with pytest.raises(InputRefused, match="weights: changed while it was read"):
        write_state(tmp_path / "state.mdl", {"w": TensorRef("w", BY_NAME["uint8"], (16,), Growing(file))})
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_is_replaced_only_if_told_to(tmp_path: Path) -> None:
    write_state(tmp_path / "state.mdl", {"a": 1})
    with pytest.raises(OutputRefused, match=r"state\.mdl: exists; overwrite=True replaces it"):
        write_state(tmp_path / "state.mdl", {"a": 2})
    assert read_state(tmp_path / "state.mdl") == {"a": 1}
    write_state(tmp_path / "state.mdl", {"a": 2}, overwrite=True)
    assert read_state(tmp_path / "state.mdl") == {"a": 2}


def test_another_run_that_writes_there_is_not_disturbed(tmp_path: Path) -> None:
    with (tmp_path / ".state.mdl.mmconvert-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (tmp_path / ".state.mdl.mmconvert-staging").write_text("half")
        with pytest.raises(OutputRefused, match="another run is writing here"):
            write_state(tmp_path / "state.mdl", {"a": 1})
    assert (tmp_path / ".state.mdl.mmconvert-staging").read_text() == "half"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("failing", ["pwrite", "fsync", "rename"])
def test_a_disk_that_fails_leaves_the_old_file(
    number: int, failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_state(tmp_path / "state.mdl", {"a": 1})

    def fail(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(DiskError, match=rf"state\.mdl: {os.strerror(number)}; .* needed, .* free"):
            write_state(tmp_path / "state.mdl", STATE, overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == ["state.mdl"]
    assert read_state(tmp_path / "state.mdl") == {"a": 1}


def test_a_limit_on_the_size_of_files_is_a_disk_error(tmp_path: Path) -> None:
    write_state(tmp_path / "state.mdl", {"a": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(DiskError, match=r"File too large; 5\.2 MB needed, .* free"):
            write_state(tmp_path / "state.mdl", {"w": held(bytes(BIG))}, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [each.name for each in tmp_path.iterdir()] == ["state.mdl"]
    assert read_state(tmp_path / "state.mdl") == {"a": 1}


@pytest.mark.parametrize("fsync", [True, False])
def test_with_fsync_the_file_reaches_the_disk_before_its_name_does(
    fsync: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    rename = os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: done.append(os.readlink(f"/proc/self/fd/{fd}")))
    monkeypatch.setattr(os, "rename", lambda a, b: done.append(f"{a} -> {b}") or rename(a, b))  # type: ignore[func-returns-value]
    write_state(tmp_path / "state.mdl", STATE, fsync=fsync)
    hidden = f"{tmp_path}/.state.mdl.mmconvert-staging"
    moved = f"{hidden} -> {tmp_path}/state.mdl"
    assert done == ([hidden, moved, str(tmp_path)] if fsync else [moved])


# Writes `{"step": n, "w": n as bytes}` again and again; each tensor takes some milliseconds to read.
WRITER = f"""
import sys, time
from mmconvert import write_state
from mmconvert.dtypes import BY_NAME
from mmconvert.sources import TensorRef
class Slow:
    def __init__(self, step):
        self.step = step
    def read_into(self, start, buffers):
        time.sleep(0.005)
        for buffer in buffers:
            buffer[:] = bytes([self.step]) * len(buffer)
step = int(sys.argv[2])
while True:
    step += 1
    state = {{"step": step, "w": TensorRef("w", BY_NAME["uint8"], ({BIG},), Slow(step))}}
    write_state(sys.argv[1], state, overwrite=True)
    print(step, flush=True)
"""


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "state.mdl"
    draw = random.Random(0)
    step = halfway = 0
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(step)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as writer:
            assert writer.stdout is not None
            step = int(writer.stdout.readline())
            time.sleep(draw.uniform(0, 0.05))
            writer.send_signal(signal.SIGKILL)
            step = max([step, *map(int, writer.stdout.read().split())])
        halfway += (tmp_path / ".state.mdl.mmconvert-staging").exists()
        found = read_state(path)
        # One that was renamed into place may have been killed before it said so.
        assert found["step"] in (step, step + 1)
        step = found["step"]
        assert found["w"].read() == bytes([step]) * BIG
    assert halfway
    write_state(path, {"step": 0}, overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == ["state.mdl"]


def test_a_kill_of_the_first_run_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "state.mdl"
    hidden = tmp_path / ".state.mdl.mmconvert-staging"
    slow = WRITER.replace("0.005", "60")
    with subprocess.Popen([sys.executable, "-c", slow, str(path), "0"], cwd=ROOT) as writer:
        deadline = time.monotonic() + 30
        while not hidden.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        writer.send_signal(signal.SIGKILL)
    assert hidden.exists()
    assert not path.exists()
    write_state(path, {"step": 0})
    assert [each.name for each in tmp_path.iterdir()] == ["state.mdl"]


def test_memory_is_some_blocks_whatever_the_size(tmp_path: Path) -> None:
    size = 256 << 20
    with (tmp_path / "weights").open("wb") as file:
        for _ in range(size >> 20):
            file.write(b"w" * (1 << 20))
    program = f"""
import resource
from pathlib import Path
from mmconvert import read_state, write_state
from mmconvert.dtypes import BY_NAME
from mmconvert.sources import FileSpan, TensorRef
ref = TensorRef("w", BY_NAME["uint8"], ({size},), FileSpan(Path("weights"), 0, {size}))
write_state("small.mdl", {{"w": 1}}, fsync=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_state("state.mdl", {{"a": [ref]}}, fsync=False)
assert read_state("state.mdl")["a"][0].shape == ({size},)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 24 << 10  # in KiB
    (ref,) = read_state(tmp_path / "state.mdl")["a"]
    assert isinstance(ref.source, FileSpan)
    assert (tmp_path / "state.mdl").stat().st_size < size + (1 << 20)


@pytest.fixture(params=["model.", ""])
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A training run's checkpoint, whose model's tensors are named with or without `model.` in front."""
    golden = read_state(TRAINED)
    entry = {"version": "2.10.0", "model_name": "multimodal_simple", "params": golden["__metadata__"][0]["params"]}
    state = {
        "model": {request.param + key.removeprefix("model."): ref for key, ref in golden["model"].items()},
        "optimizer": golden["optimizer"],
        "schedulers": [{"last_epoch": 3}],
        "scaler": {"scale": 65536.0},
        "dataloader": {"epoch": 1, "order": held(bytes(16), "int64", (2,))},
        "rng": {"torch": held(bytes(5056)), "cuda": [held(bytes(16))]},
        "global_step": 3,
        "__metadata__": [entry],
    }
    write_state(tmp_path / "run" / "checkpoint_3.mdl", state)
    return tmp_path / "run" / "checkpoint_3.mdl"


def test_a_trainers_checkpoint_is_a_cs_checkpoint(trained: Path) -> None:
    found, golden = api.recognise(trained), api.recognise(TRAINED)
    assert (found.node.model, found.node.format, str(found.node.release)) == ("mmsimple-llava", "cs", "2.10")
    assert found.config == golden.config
    assert found.config_from == f"{trained} (its own metadata)"
    values = {key.removeprefix("model."): told(ref) for key, ref in found.tensors.items()}
    assert values == {key.removeprefix("model."): told(ref) for key, ref in golden.tensors.items()}
    assert {key.partition(".")[0] for key in found.set_aside} == {
        *("optimizer", "schedulers", "scaler", "dataloader", "rng", "global_step")
    }
    assert all(found.set_aside.values())


def test_a_trainers_checkpoint_is_inspected_converted_and_verified(
    trained: Path,
    mmconvert: Callable[..., CompletedProcess[str]],
    contents: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    assert json.loads(mmconvert("inspect", trained, "--json").stdout)["model"] == "mmsimple-llava"
    done = mmconvert("cs-to-llava", "--src", trained, "--out", tmp_path / "llava", "--no-fsync")
    assert done.returncode == 0, done.stderr
    assert mmconvert("verify", trained, tmp_path / "llava").returncode == 0
    api.convert(TRAINED, tmp_path / "expected", "llava", fsync=False)
    assert contents(tmp_path / "llava") == contents(tmp_path / "expected")
    manifest = json.loads((tmp_path / "llava" / "mmconvert.json").read_text())
    assert "rng.torch" in json.dumps(manifest["dropped"])


def test_a_trainers_checkpoint_is_a_model(trained: Path) -> None:
    from mmsimple.model import MultimodalModel

    found = MultimodalModel.from_checkpoint(trained).state_dict()
    expected = MultimodalModel.from_checkpoint(TRAINED).state_dict()
    assert found.keys() == expected.keys()
    assert all(bool((found[key] == expected[key]).all()) for key in expected)
