"""Hostile input, given to the real commands: refused in a line or two, and nothing done, nothing left, nothing opened.

Each case is a command in a process of its own, under limits, with a hook on all that Python does and a watch on files
that no command has a reason to open.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import h5py
import pytest

from mmconvert import Options, convert
from tests.trust.amounts import amount
from tests.trust.conftest import Tell
from tests.trust.hostile import (
    configs,
    folders,
    indexes,
    mdl,
    mdl_damaged,
    others,
    outputs,
    pictures,
    safetensors_files,
    tokenizer_files,
    torch_files,
    training_files,
    yaml_files,
)
from tests.trust.hostile.case import Case, Place, stamped
from tests.trust.observing import NAMES, SCRIPTS, Observed, observe

Make = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]

CPU_SECONDS = 5.0
# torch alone takes 300 MB.
PEAK_BYTES = {"mmconvert": 200_000_000, "mmsimple": 500_000_000}
# No command that may be seen importing torch but the trainer's.
NAMES_OF = {"mmconvert": NAMES, "mmsimple": tuple(name for name in NAMES if name not in ("torch", "transformers"))}
# Errors of ours are cut at 1,200 characters.
LONGEST = 1300

TABLES = (
    safetensors_files,
    indexes,
    torch_files,
    mdl,
    mdl_damaged,
    configs,
    yaml_files,
    tokenizer_files,
    folders,
    outputs,
    others,
    pictures,
    training_files,
)
ALL = {f"{table.WHAT}: {name}": case for table in TABLES for name, case in table.CASES.items()}
USUAL = {f"{table.WHAT}: {name}": table.CASES[name] for table in TABLES for name in table.USUAL}
CASES = list(ALL if amount(len(USUAL), len(ALL)) == len(ALL) else USUAL)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory, make_llama: Make, llava: Path) -> dict[str, Path]:
    """Sound checkpoints by name, not to be changed."""
    folder = tmp_path_factory.mktemp("bases")
    made = {
        "llama": make_llama(folder / "llama"),
        "shards": make_llama(folder / "shards", shards=2),
        "bin": make_llama(folder / "bin", container="bin"),
        "bin shards": make_llama(folder / "bin-shards", container="bin", shards=2),
        "llava": llava,
    }
    shards = Options(container="safetensors")
    for name, model, options in (("mdl", "llama", Options()), ("cs", "llama", shards), ("cs llava", "llava", shards)):
        made[name] = folder / name.replace(" ", "-")
        convert(made[model], made[name], to="cs", options=options, fsync=False)
    return made


@pytest.fixture
def place(tmp_path: Path, bases: dict[str, Path]) -> Iterator[Place]:
    place = Place(tmp_path, bases)
    place.out.parent.mkdir()
    place.notes.mkdir()
    place.foreign.mkdir()
    (place.foreign / "secret").write_bytes(b"secret" * 100)
    (place.foreign / "payload.py").write_text("open('marker', 'w')")
    with h5py.File(place.foreign / "other.h5", "w") as file:
        file["w"] = list(range(24))
    yield place
    for each in place.held:
        each.close()


def observed(case: Case, place: Place) -> Observed:
    """What the case's command does."""
    words = [word.format(source=place.source, out=place.out) for word in case.command.split()]
    return observe(
        [SCRIPTS / case.program, *words],
        place.notes,
        allowed=[place.source, place.out.parent, *place.bases.values()],
        foreign=place.foreign,
        names=NAMES_OF[case.program],
        file_size=case.file_size,
    )


def message(stderr: str) -> str:
    """The error, which is one or two lines and the last thing on stderr, and fit to be printed."""
    lines = stderr.splitlines()
    start = next((at for at, line in enumerate(lines) if line.startswith("error: ")), len(lines))
    assert 1 <= len(lines) - start <= 2, stderr[-2000:]
    assert "Traceback" not in stderr
    assert all(line.isprintable() and len(line) < LONGEST for line in lines), stderr[-2000:]
    return "\n".join(lines[start:])


@pytest.mark.parametrize("name", CASES)
def test_hostile_input_is_refused_and_nothing_is_done(
    place: Place, name: str, monkeypatch: pytest.MonkeyPatch, tell: Tell
) -> None:
    case = ALL[name]
    if case.program == "mmsimple":
        # Params files are read in a temporary folder, which is seen to be opened.
        monkeypatch.setenv("TMPDIR", str(place.notes))
    if case.needs == "an ordinary user" and os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    case.build(place)
    sources, beside = (stamped(place.source), stamped(place.foreign)), stamped(place.out.parent)
    found = observed(case, place)
    assert found.code == case.code, found.stderr[-2000:]
    said = found.stdout + (message(found.stderr) if case.code else found.stderr)
    assert [word for word in case.words if word not in said] == [], said
    assert (stamped(place.source), stamped(place.foreign)) == sources
    if case.code:
        assert stamped(place.out.parent) == beside
    assert found.events == ()
    assert found.opened == set()
    assert found.cpu < CPU_SECONDS
    assert found.peak < PEAK_BYTES[case.program]
    tell("hostile inputs refused" if case.code else "odd inputs accepted", 1)


def test_values_that_are_not_finite_are_converted_and_told_of(place: Place, mmconvert: Run) -> None:
    ALL["folder: values that are NaN and infinite"].build(place)
    assert mmconvert("hf-to-cs", "--src", place.source, "--out", place.out).returncode == 0
    compared = mmconvert("verify", place.source, place.out)
    assert compared.returncode == 0
    assert "NaN or infinite values, equal on both sides: " in compared.stderr
    assert "ln_f.weight" in compared.stderr
    for folder in (place.source, place.out):
        scanned = mmconvert("inspect", folder, "--scan")
        assert scanned.returncode == 0
        assert re.search(r"(norm|ln_f)\.weight +24 +24", scanned.stdout), scanned.stdout
