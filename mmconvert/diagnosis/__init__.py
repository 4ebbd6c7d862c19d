"""Would this checkpoint load there, and rightly? Answered from headers, configs and file names, never from tensor data.

The tables of traps come through the entry-point group `mmconvert.readers`: each entry point is a callable that gives
any number of `Reader`s. This package finds them, picks the one that a folder is meant for, and looks for its traps.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from mmconvert.diagnosis.patient import Patient
from mmconvert.diagnosis.traps import AnyReader, Diagnosis, Look, Reader, Symptom, Trap, error, every, warning
from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts.hugging_face import snapshot

__all__ = [
    "AnyReader",
    "Diagnosis",
    "Look",
    "Patient",
    "Reader",
    "Symptom",
    "Trap",
    "error",
    "every",
    "examine",
    "readers",
    "warning",
]

GROUP = "mmconvert.readers"


@cache
def readers() -> tuple[AnyReader, ...]:
    """All installed readers, ordered by name."""
    found: list[AnyReader] = [each for point in metadata.entry_points(group=GROUP) for each in point.load()()]
    return tuple(sorted(found, key=lambda each: each.name))


def examine(folder: Path, reader: str | None = None) -> Diagnosis:
    """Look for the traps of a reader, by its name, or else of the reader whose format the folder is in.

    Raises UsageError if there is no such folder or reader, InputRefused if no reader is named and none claims it.
    """
    # pathlib would raise for a name that is too long.
    if not os.path.exists(folder):
        raise UsageError(f"{folder}: no such file or folder")
    if not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name the folder that holds it")
    patient = Patient(snapshot(folder))
    chosen = _claiming(folder, patient) if reader is None else _named(reader)
    found = list(_symptoms(chosen, patient, folder))
    # What could not be read has come up while traps were looked for.
    unreadable = [Symptom("unreadable", "error", each, "copy or download that file again") for each in patient.troubles]
    ordered = sorted(unreadable + found, key=lambda each: each.severity != "error")
    return Diagnosis(folder, chosen.name, chosen.title, tuple(ordered))


def _named(name: str) -> AnyReader:
    for each in readers():
        if each.name == name:
            return each
    raise UsageError(f"no reader is called {name!r}; known: {', '.join(each.name for each in readers())}")


def _claiming(folder: Path, patient: Patient) -> AnyReader:
    claiming = [each for each in readers() if each.claims(patient)]
    names = ", ".join(each.name for each in claiming or readers())
    if not claiming:
        # A broken config may be all that keeps a reader from knowing its own.
        why = next(iter(patient.troubles), f"{folder}: no checkpoint is recognised here")
        raise InputRefused(f"{why}; say with --for who is to read it: {names}")
    if len(claiming) > 1:
        raise UsageError(f"{folder}: may be for {names}; say which with --for")
    return claiming[0]


def _symptoms(reader: AnyReader, patient: Patient, folder: Path) -> Iterator[Symptom]:
    view = reader.view(patient)
    for trap in reader.traps:
        seen = list(trap.look(view))
        mend = trap.mend.replace("{path}", shlex.quote(str(folder)))
        for what in seen:
            yield Symptom(trap.name, trap.severity, f"{what}; {trap.why}", mend)
        if seen and trap.decisive:
            return
