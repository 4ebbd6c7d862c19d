"""The vocabulary of renames: what a release may do to a field of a flat params file, and how it is undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmconvert.params.values import AS_IT_IS, Spelling
from mmconvert.paths import ABSENT, get, put, without
from mmconvert.remark import Remark

Config = Mapping[str, Any]
Result = tuple[Config, tuple[Remark, ...]]
Step = Callable[[Config], Result]
Condition = Callable[[Config], bool]


@dataclass(frozen=True)
class Row:
    """What a release changed: `up` takes a config to the spelling since then, `down` to the one before.

    Either gives a remark for each field that it drops.
    """

    up: Step
    down: Step


def stays(config: Config) -> Result:
    return config, ()


def rename(older: str, newer: str, spelling: Spelling = AS_IT_IS) -> Row:
    """A field with another name, and perhaps another value, on either side of a release."""
    return Row(_moved(older, newer, spelling.up), _moved(newer, older, spelling.down))


def respell(older: str, newer: str) -> Row:
    """A field whose newer name the older releases read too: it never goes down."""
    return Row(_moved(older, newer, AS_IT_IS.up), stays)


def join(*older: str, into: str) -> Row:
    """Fields that became one list, which the older releases read too. They go together or stay."""

    def joined(config: Config) -> Result:
        values = [get(config, path) for path in older]
        if ABSENT in values:
            return config, ()
        left: Any = config
        for path in older:
            left = without(left, path)
        held = get(config, into)
        if held in (ABSENT, values):
            return put(left, into, values), ()
        return left, tuple(Remark(path, f"{into} is there too, and counts") for path in older)

    return Row(joined, stays)


def gone(*paths: str, why: str) -> Row:
    """Fields or sections that nothing reads any more."""

    def dropped(config: Config) -> Result:
        found = [path for path in paths if get(config, path) is not ABSENT]
        left: Any = config
        for path in found:
            left = without(left, path)
        return left, tuple(Remark(path, why) for path in found)

    return Row(dropped, stays)


def each(path: str, *rows: Row, when: Condition = lambda entry: True) -> Row:
    """Rows for the mapping at a path, or for every mapping of the list there."""

    def steps(config: Config, chosen: list[Step]) -> Result:
        held = get(config, path)
        entries = {path: held} if isinstance(held, Mapping) else {}
        if isinstance(held, list):
            entries = {f"{path}.{at}": each for at, each in enumerate(held) if isinstance(each, Mapping)}
        changed: Any = config
        remarks: list[Remark] = []
        for where, entry in entries.items():
            if when(entry):
                new, said = apply(chosen, entry)
                changed = put(changed, where, new)
                remarks += [Remark(f"{where}.{remark.subject}", remark.why) for remark in said]
        return changed, tuple(remarks)

    return Row(
        lambda config: steps(config, [row.up for row in rows]),
        lambda config: steps(config, [row.down for row in reversed(rows)]),
    )


def put_in(config: Config, path: str, value: Any) -> Config:
    """As `put`, but a section that is null counts as one that holds nothing."""
    section, _, _ = path.rpartition(".")
    made = put(config, section, {}) if get(config, section) is None else config
    changed: Config = put(made, path, value)
    return changed


def apply(steps: list[Step], config: Config) -> Result:
    """One step after the other, with all their remarks."""
    remarks: list[Remark] = []
    for step in steps:
        config, said = step(config)
        remarks += said
    return config, tuple(remarks)


def _moved(here: str, there: str, spelled: Callable[[Any], Any]) -> Step:
    def step(config: Config) -> Result:
        value = get(config, here)
        if value is ABSENT:
            return config, ()
        left, said, held = without(config, here), spelled(value), get(config, there)
        if said is ABSENT:
            return left, (Remark(here, f"{value!r:.60} cannot be said as {there}"),)
        if held not in (ABSENT, said):
            return left, (Remark(here, f"{there} is there too, and counts"),)
        return put_in(left, there, said), ()

    return step
