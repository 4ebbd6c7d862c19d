"""Learning rates: pure functions of how many updates there have been, so that a run that goes on needs no state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi
from typing import Any, TypeAlias

from mmconvert.errors import InputRefused
from mmconvert.params.schedulers import NAMES, SCALED
from mmsimple.data.fields import Kind
from mmsimple.sections.supported import below, require
from mmsimple.train.entries import (
    NOT_NEGATIVE,
    NULL,
    OFF,
    UPDATES,
    UPDATES_OR_NULL,
    is_integer,
    read_fields,
    read_name,
)


@dataclass(frozen=True)
class Constant:
    """The same rate at every update."""

    learning_rate: float

    def __call__(self, step: int) -> float:
        return self.learning_rate


@dataclass(frozen=True)
class Linear:
    """A straight line over `total_iters` updates, and `end` from then on."""

    initial: float
    end: float
    total_iters: int

    def __call__(self, step: int) -> float:
        return self.initial + (self.end - self.initial) * (min(step, self.total_iters) / self.total_iters)


@dataclass(frozen=True)
class Cosine:
    """Half a period of a cosine over `total_iters` updates, and `end` from then on."""

    initial: float
    end: float
    total_iters: int

    def __call__(self, step: int) -> float:
        share = (1 + cos(pi * (min(step, self.total_iters) / self.total_iters))) / 2
        return (self.initial - self.end) * share + self.end


@dataclass(frozen=True)
class Sequential:
    """One after the other: each part is (the update that it begins at, itself), and counts updates from there.

    The first begins at 0, and every other after the one before it.
    """

    parts: tuple[tuple[int, Schedule], ...]

    def __call__(self, step: int) -> float:
        start, schedule = next(part for part in reversed(self.parts) if part[0] <= step)
        return schedule(step - start)


Schedule: TypeAlias = Constant | Linear | Cosine | Sequential


def _are_milestones(value: Any) -> bool:
    if not isinstance(value, list) or not all(is_integer(each, 1) for each in value):
        return False
    return all(a < b for a, b in pairwise(value))


SCHEDULERS = Kind("a list of schedulers", lambda value: isinstance(value, list) and len(value) > 0)
MILESTONES = Kind(
    "whole numbers of updates, each larger than the one before it",
    lambda value: value is None or _are_milestones(value),
)
CURVE = {"initial_learning_rate": NOT_NEGATIVE, "end_learning_rate": NOT_NEGATIVE, "total_iters": UPDATES}
FIELDS: dict[str, dict[str, Kind]] = {
    "ConstantLR": {"learning_rate": NOT_NEGATIVE, "total_iters": UPDATES_OR_NULL, "param_group_tags": NULL},
    "LinearLR": {**CURVE, "cycle": OFF, "param_group_tags": NULL},
    "CosineDecayLR": {**CURVE, "param_group_tags": NULL},
    "SequentialLR": {"schedulers": SCHEDULERS, "milestones": MILESTONES, "param_group_tags": NULL},
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "ConstantLR": {"total_iters": None, "param_group_tags": None},
    "LinearLR": {"cycle": False, "param_group_tags": None},
    "CosineDecayLR": {"param_group_tags": None},
    "SequentialLR": {"milestones": None, "param_group_tags": None},
}
KNOWN = (*(full for _, full in NAMES), SCALED)


def read_schedules(section: Any, where: str, path: str) -> Schedule:
    """The learning rate that `trainer.init.schedulers`, at a path of the file `where`, describes.

    It is a list of one scheduler, that scheduler alone, or a number, which is a constant. Raises InputRefused, naming
    file and path, for a scheduler or field that does not exist, with the nearest that does; for schedulers that CS has
    and mmsimple does not; and for values that make no sense.
    """
    if isinstance(section, list):
        several = "mmsimple takes one; SequentialLR runs several, one after the other"
        require(len(section) == 1, where, f"{path} has {len(section)} schedulers, and {several}")
        section, path = section[0], below(path, "0")
    if isinstance(section, int | float):
        return Constant(float(NOT_NEGATIVE.checked(section, where, path)))
    return _read(section, where, path)[0]


def _read(entry: Any, where: str, path: str) -> tuple[Schedule, int | None]:
    """A scheduler, and after how many updates the next one has its turn; None where nothing says so."""
    name, section, at = read_name(entry, "scheduler", FIELDS, KNOWN, where, path)
    fields = read_fields(section, FIELDS[name], DEFAULTS[name], where, at)
    if name == "SequentialLR":
        return _read_sequential(fields, where, at)
    if name == "ConstantLR":
        return Constant(float(fields["learning_rate"])), fields["total_iters"]
    curve = Linear if name == "LinearLR" else Cosine
    initial, end = float(fields["initial_learning_rate"]), float(fields["end_learning_rate"])
    return curve(initial, end, fields["total_iters"]), fields["total_iters"]


def _read_sequential(fields: Mapping[str, Any], where: str, path: str) -> tuple[Sequential, int | None]:
    inner, at = below(path, "schedulers"), below(path, "milestones")
    read = [_read(each, where, below(inner, str(number))) for number, each in enumerate(fields["schedulers"])]
    schedules, lengths = zip(*read, strict=True)
    given = fields["milestones"]
    milestones = tuple(_milestones(lengths[:-1], where, inner)) if given is None else given
    wanted = f"for {len(read)} schedulers: it must have {len(read) - 1}"
    require(len(milestones) == len(read) - 1, where, f"{at} has {len(milestones)} entries {wanted}")
    starts = (0, *milestones)
    length = None if lengths[-1] is None else starts[-1] + lengths[-1]
    return Sequential(tuple(zip(starts, schedules, strict=True))), length


def _milestones(lengths: Iterable[int | None], where: str, path: str) -> Iterator[int]:
    """At which updates schedulers end that run one after the other."""
    end = 0
    for number, length in enumerate(lengths):
        if length is None:
            unsaid = "nothing says when the next one begins; give its total_iters, or milestones"
            raise InputRefused(f"{where}: {below(path, str(number))}: {unsaid}")
        end += length
        yield end
