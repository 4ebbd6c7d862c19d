"""mmconvert as a library: the functions that its users call, and what they give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import mmconvert
from mmconvert.errors import OutputRefused, UsageError
from mmconvert.manifest import NAME


def test_names_are_functions_whatever_was_imported_before() -> None:
    names = [name for name in mmconvert.__all__ if name[0].islower()]
    script = "import importlib, pkgutil, mmconvert\n"
    script += "for each in pkgutil.iter_modules(mmconvert.__path__, 'mmconvert.'): importlib.import_module(each.name)\n"
    script += "\n".join(f"assert callable(mmconvert.{name}), {name!r}" for name in names * 2)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


def test_importing_it_waits_for_nothing_heavy() -> None:
    script = "import sys, mmconvert; print(sorted({'numpy', 'h5py', 'jsonschema', 'torch', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mmconvert.nothing


def test_tensors_are_opened_unread(clip: Path) -> None:
    found = mmconvert.open(str(clip))["visual_projection.weight"]
    expected = load_file(clip / "model.safetensors")["visual_projection.weight"]
    assert (found.shape, found.dtype.name) == ((24, 32), "float32")
    assert found.read() == expected.numpy().tobytes()


def test_a_conversion_returns_its_manifest_and_tells_its_progress(clip: Path, tmp_path: Path) -> None:
    heard: list[int] = []

    class Watch:
        def start(self, total_bytes: int) -> None:
            heard.append(-total_bytes)

        def advance(self, nbytes: int) -> None:
            heard.append(nbytes)

        def finish(self) -> None:
            assert sum(heard) == 0

    out = tmp_path / "cs"
    manifest = mmconvert.convert(str(clip), str(out), "cs", fsync=False, progress=Watch())
    assert heard
    assert manifest["target"] == {"model": "clip-vit", "format": "cs", "release": "2.10"}
    assert (out / NAME).is_file()
    assert mmconvert.verify(clip, out).problems == []
    assert not mmconvert.verify(out).problems


def test_a_plan_writes_nothing(clip: Path, tmp_path: Path) -> None:
    planned = mmconvert.plan(clip, tmp_path / "cs", "cs-2.4")
    assert len(planned.tensors) == 56
    assert planned.facts["target"]["release"] == "2.4"
    assert list(tmp_path.iterdir()) == []


def test_failures_are_exceptions_of_ours(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        mmconvert.inspect(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(OutputRefused):
        mmconvert.convert(clip, tmp_path, "cs")
