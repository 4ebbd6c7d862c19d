"""Small conversions between several formats, planned once and carried out as often as one likes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mmconvert
from mmconvert.api import run
from mmconvert.dtypes import BY_NAME
from mmconvert.manifest import NAME
from mmconvert.plans import Plan
from tests.conftest import Make

FORMATS = ("safetensors to mdl", "bin to safetensors", "mdl to LLaVA", "LLaVA to llava-hf")


@dataclass(frozen=True)
class Conversion:
    """A conversion to `out`, and what it is to write there: the manifest of an undisturbed run, `new`.

    `old` is that of what stands there before, where anything does.
    """

    folder: Path
    make_plan: Callable[[], Plan]
    plan: Plan
    new: dict[str, Any]
    old: dict[str, Any]
    resume: bool = False

    @property
    def out(self) -> Path:
        return self.plan.out

    def run(self, **options: Any) -> dict[str, Any]:
        """Raises what conversions raise."""
        return run(self.plan, resume=self.resume, **options)

    def begin_anew(self, *, with_old: bool) -> None:
        """Leave nothing where the target is to be, or another conversion's, which is `old`."""
        shutil.rmtree(self.out.parent)
        self.out.parent.mkdir()
        if with_old:
            shutil.copytree(self.folder / "old", self.out)

    def planned_anew(self) -> Conversion:
        """The same of a source that has been put back."""
        return replace(self, plan=self.make_plan())

    @property
    def beside(self) -> list[str]:
        """What lies where the target is, itself included."""
        return sorted(path.name for path in self.out.parent.iterdir())


def state_of(folder: Path) -> dict[str, Any] | None:
    """The manifest of what stands at a place, None where nothing does; raises where it is not whole to the last bit."""
    if not folder.exists():
        return None
    found = mmconvert.verify(folder)
    assert not found.problems, found.problems
    document: dict[str, Any] = json.loads((folder / NAME).read_bytes())
    return document


def conversion(name: str, folder: Path, make_llama: Make, make_clip: Make, make_llava: Make) -> Conversion:
    """One of FORMATS, its source and its target in `folder`."""
    source, out, options, to = folder / "source", folder / "here" / "out", mmconvert.Options(), "cs"
    if name == "safetensors to mdl":
        make_llama(source, shards=3)
    elif name == "bin to safetensors":
        make_llama(source, container="bin", shards=2)
        options = mmconvert.Options(container="safetensors", max_shard_size=20_000, dtype={"": BY_NAME["float16"]})
    else:
        make_llava(source)
        if name == "mdl to LLaVA":
            mmconvert.convert(source, folder / "cs", "cs", fsync=False)
            source, to, options = folder / "cs", "llava", mmconvert.Options(max_shard_size=30_000)
        else:
            to = "llava-hf"
    out.parent.mkdir()
    old = mmconvert.convert(make_clip(folder / "clip"), folder / "old", "cs", fsync=False)

    def make_plan() -> Plan:
        return mmconvert.plan(source, out, to, options=options, overwrite=True)

    planned = make_plan()
    new = run(replace(planned, out=folder / "new"), fsync=False)
    return Conversion(folder, make_plan, planned, new, old, resume=options.max_shard_size is not None)
