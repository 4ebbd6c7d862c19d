"""What tables of traps are made of, and what examining a folder gives.

A reader is a program that loads checkpoints. A trap is something that it does with a checkpoint that its owner does not
expect: it fails, computes wrong numbers, or leaves something out. Nothing here knows a model or a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from mmconvert.diagnosis.patient import Patient

Severity = Literal["error", "warning"]
View = TypeVar("View")
Part = TypeVar("Part")
Look = Callable[[View], Iterable[str]]


@dataclass(frozen=True)
class Trap(Generic[View]):
    """One trap of a reader.

    `look` gives what it sees of it, naming file and field or tensor, once for each place; nothing where all is well.
    `why` says what the reader makes of that, and `mend` how to get out: an edit, or a command in which `{path}` is the
    folder examined. Where a `decisive` trap is found, the traps after it are not looked for: they would only repeat it.
    """

    name: str
    severity: Severity
    look: Look[View]
    why: str
    mend: str
    decisive: bool = False


def error(name: str, look: Look[View], *, why: str, mend: str, decisive: bool = False) -> Trap[View]:
    """A trap in which the checkpoint does not load, or computes wrong numbers."""
    return Trap(name, "error", look, why, mend, decisive)


def warning(name: str, look: Look[View], *, why: str, mend: str, decisive: bool = False) -> Trap[View]:
    """A trap in which the checkpoint loads, but something is lost or surprising."""
    return Trap(name, "warning", look, why, mend, decisive)


def every(parts: Callable[[View], Iterable[Part]], look: Look[Part]) -> Look[View]:
    """Look at every part of a view."""

    def look_at_all(view: View) -> Iterator[str]:
        for part in parts(view):
            yield from look(part)

    return look_at_all


@dataclass(frozen=True)
class Reader(Generic[View]):
    """A program that loads checkpoints, with its traps in the order in which they are looked for.

    `title` names the releases that the traps are known from. `claims` says whether a folder is in this reader's own
    format; no folder should be in that of two. `view` gives what the traps look at.
    """

    name: str
    title: str
    claims: Callable[[Patient], bool]
    view: Callable[[Patient], View]
    traps: tuple[Trap[View], ...]


AnyReader = Reader[Any]


@dataclass(frozen=True)
class Symptom:
    """A trap that a folder has fallen into: `what` was seen and what it leads to, and how to `mend` it."""

    trap: str
    severity: Severity
    what: str
    mend: str


@dataclass(frozen=True)
class Diagnosis:
    """What examining a folder for a reader gave, errors first; `title` is the reader's."""

    path: Path
    reader: str
    title: str
    symptoms: tuple[Symptom, ...]

    @property
    def errors(self) -> tuple[Symptom, ...]:
        return tuple(each for each in self.symptoms if each.severity == "error")

    @property
    def ok(self) -> bool:
        """Whether the checkpoint loads and computes what it should, as far as can be seen."""
        return not self.errors
