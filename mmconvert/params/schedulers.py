"""Learning rates: a number, a mapping or a list in a flat file, schedulers by name in a trainer's.

Both spellings of each name stand in one table. Down, the spelling is the one that flat files use most: a number for a
constant, a list for anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# fmt: off
NAMES = (
    # flat                          under `trainer`
    ("Constant",                    "ConstantLR"),
    ("Linear",                      "LinearLR"),
    ("Polynomial",                  "PolynomialLR"),
    ("Exponential",                 "ExponentialLR"),
    ("InverseExponentialTimeDecay", "InverseExponentialTimeDecayLR"),
    ("InverseSquareRootDecay",      "InverseSquareRootDecayLR"),
    ("CosineDecay",                 "CosineDecayLR"),
    ("CosineAnnealing",             "CosineAnnealingLR"),
    ("CosineAnnealingWarmRestarts", "CosineAnnealingWarmRestarts"),
    ("PiecewiseConstant",           "PiecewiseConstantLR"),
    ("Step",                        "StepLR"),
    ("MultiStep",                   "MultiStepLR"),
    ("OneCycle",                    "OneCycleLR"),
    ("CyclicLR",                    "CyclicLR"),
    ("Multiplicative",              "MultiplicativeLR"),
    ("Lambda",                      "LambdaLR"),
    ("Sequential",                  "SequentialLR"),
    ("Chained",                     "ChainedScheduler"),
)
# fmt: on
SEQUENTIAL, CHAINED, CONSTANT = "SequentialLR", "ChainedScheduler", "ConstantLR"
SCALED = "ScalePerParamLR"

_FLAT = {full: flat for flat, full in NAMES}
# Flat files leave case open, and whether `LR` stands at the end.
_FULL = {name.lower(): full for flat, full in NAMES for name in (flat, f"{flat}LR", flat.removesuffix("LR"), full)}

Schedulers = list[dict[str, Any]]


class Unsaid(ValueError):
    """A learning rate that the other side has no words for."""


def full_name(name: Any) -> str | None:
    """The name under `trainer` of a scheduler of a flat file; None if none is known."""
    return _FULL.get(name.lower()) if isinstance(name, str) else None


def to_trainer(rate: Any, scaled: bool, path: str) -> Schedulers:
    """The learning rate at `path` of a flat file as `init.schedulers`; `scaled` wraps it for muP.

    Raises Unsaid for a learning rate or a scheduler of no known kind, and ValueError, naming the path, for an entry
    that is no mapping.
    """
    if isinstance(rate, int | float) and not isinstance(rate, bool):
        scheduler: dict[str, Any] = {CONSTANT: {"learning_rate": rate}}
    elif isinstance(rate, Mapping):
        scheduler = _joined([rate], path)
    elif isinstance(rate, list):
        if not rate:
            return []
        scheduler = _joined(rate, path)
    else:
        raise Unsaid(f"{rate!r:.60} is neither a number nor a mapping nor a list of mappings")
    return [{SCALED: {"scheduler": scheduler}} if scaled else scheduler]


def _joined(entries: list[Any], path: str) -> dict[str, Any]:
    """One scheduler made of all entries of a flat file."""
    schedulers = [_entry_to_trainer(entry, f"{path}.{at}") for at, entry in enumerate(entries)]
    said = {str(entry["main_scheduler"]) for entry in entries if entry.get("main_scheduler") is not None}
    mains = {full_name(name) for name in said} or {SEQUENTIAL}
    if mains == {CHAINED}:
        return {CHAINED: {"schedulers": schedulers}}
    if mains == {SEQUENTIAL}:
        return schedulers[0] if len(schedulers) == 1 else {SEQUENTIAL: {"schedulers": schedulers}}
    raise Unsaid(f"main_scheduler is {' and '.join(sorted(said))}, and can be sequential or chained")


def _entry_to_trainer(entry: Any, path: str) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{path} is {entry!r:.60}, but must be a mapping")
    name = full_name(entry.get("scheduler"))
    if name is None:
        raise Unsaid(f"no scheduler of the name {entry.get('scheduler')!r:.60} is known")
    arguments = {key: value for key, value in entry.items() if key not in ("scheduler", "main_scheduler")}
    if isinstance(arguments.get("schedulers"), list):
        inner = [_entry_to_trainer(each, f"{path}.schedulers.{at}") for at, each in enumerate(arguments["schedulers"])]
        arguments["schedulers"] = inner
    return {name: arguments}


def to_flat(schedulers: Any, path: str) -> tuple[Any, bool]:
    """`init.schedulers` as the learning rate of a flat file, and whether it was wrapped for muP.

    Raises Unsaid for what a flat file has no words for, and ValueError, naming the path, for what are no schedulers.
    """
    if not isinstance(schedulers, list):
        raise ValueError(f"{path} is {schedulers!r:.60}, but must be a list")
    if not schedulers:
        return [], False
    if len(schedulers) > 1:
        raise Unsaid(f"{len(schedulers)} schedulers run side by side; a flat file has one learning rate")
    name, arguments = named(schedulers[0], f"{path}.0")
    if name == SCALED and arguments.keys() == {"scheduler"}:
        path = f"{path}.0.{SCALED}.scheduler"
        return _taken_apart(*named(arguments["scheduler"], path), path), True
    return _taken_apart(name, arguments, f"{path}.0"), False


def _taken_apart(name: str, arguments: Mapping[str, Any], path: str) -> Any:
    """One scheduler as a flat file says it: a number, or the list of what it is made of."""
    if name == CONSTANT and arguments.keys() == {"learning_rate"}:
        return arguments["learning_rate"]
    entry = _entry_to_flat(name, arguments, path)
    inner = entry.get("schedulers")
    if entry.keys() == {"scheduler", "schedulers"} and isinstance(inner, list) and inner:
        if name == SEQUENTIAL:
            return inner
        if name == CHAINED:
            return [{**inner[0], "main_scheduler": "chained"}, *inner[1:]]
    return [entry]


def _entry_to_flat(name: str, arguments: Mapping[str, Any], path: str) -> dict[str, Any]:
    if name not in _FLAT:
        raise Unsaid(f"a flat file has no learning rate of the name {name!r:.60}")
    entry = {"scheduler": _FLAT[name], **arguments}
    if isinstance(arguments.get("schedulers"), list):
        path = f"{path}.{name}.schedulers"
        inner = enumerate(arguments["schedulers"])
        entry["schedulers"] = [_entry_to_flat(*named(each, f"{path}.{at}"), f"{path}.{at}") for at, each in inner]
    return entry


def named(entry: Any, path: str) -> tuple[str, dict[str, Any]]:
    """The one name of `{Name: arguments}` and its arguments; null stands for none.

    Raises ValueError, naming the path, for anything else.
    """
    if isinstance(entry, Mapping) and len(entry) == 1:
        name, arguments = next(iter(entry.items()))
        if arguments is None or isinstance(arguments, Mapping):
            return str(name), dict(arguments or {})
    raise ValueError(f"{path} is {entry!r:.60}, but must be one name with its arguments")
