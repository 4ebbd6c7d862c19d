"""Carry fields from one shape of a document to another by rows that name both places of each.

Nothing here knows which shape is the older one: the rows are read from either side. What no row takes is left behind,
with a remark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mmconvert.params.values import AS_IT_IS, Spelling
from mmconvert.paths import ABSENT, get, put
from mmconvert.remark import Remark

Side = Literal["flat", "trainer"]
FLAT: Side = "flat"
NESTED: Side = "trainer"

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """A key of the mapping at a dotted path. The key may have dots of its own; it is never taken apart."""

    section: str
    key: str

    def __str__(self) -> str:
        return f"{self.section}.{self.key}" if self.section else self.key

    def read(self, document: Document) -> Any:
        """The value here, or ABSENT."""
        section = get(document, self.section)
        return section.get(self.key, ABSENT) if isinstance(section, Mapping) else ABSENT

    def write(self, document: Document, value: Any) -> dict[str, Any]:
        """A copy of the document with the value here."""
        if not self.section:
            return {**document, self.key: value}
        section = get(document, self.section)
        filled = {**({} if section is ABSENT else section), self.key: value}
        written: dict[str, Any] = put(document, self.section, filled)
        return written


def place(path: str) -> Place:
    """The place at a dotted path, where the last name is the key."""
    section, _, key = path.rpartition(".")
    return Place(section, key)


@dataclass(frozen=True)
class Move:
    """One field, with its place on either side; the flat spelling of its value is the older one."""

    flat: Place
    trainer: Place
    spelling: Spelling = AS_IT_IS

    def on(self, side: Side) -> Place:
        return self.flat if side == FLAT else self.trainer

    def leave(self, side: Side, value: Any) -> Any:
        """The value of `side` as the other side spells it, or ABSENT."""
        return (self.spelling.up if side == FLAT else self.spelling.down)(value)


@dataclass(frozen=True)
class Rest:
    """A whole section under one name and the other, but for the fields that have a row of their own."""

    flat: str
    trainer: str

    def on(self, side: Side) -> str:
        return self.flat if side == FLAT else self.trainer


Row = Move | Rest


@dataclass(frozen=True)
class Table:
    """All rows between two shapes.

    `loose` are sections that may be something else than a mapping, and then move as they are; `lists` are those whose
    entries are named by users, so that an empty one still says something. `why` gives, for each side, why what no row
    names is dropped; `reasons` gives better ones for some fields.
    """

    rows: Sequence[Row]
    why: Mapping[Side, str]
    reasons: Mapping[str, str] = field(default_factory=dict)
    loose: frozenset[str] = frozenset()
    lists: tuple[str, ...] = ()

    def check(self, document: Document, side: Side) -> None:
        """Raise ValueError, naming the path, for a section that is no mapping; null holds nothing, and will do."""
        for path in sorted(self.sections(side) - self.loose):
            held = get(document, path)
            if not (held is ABSENT or held is None or isinstance(held, Mapping) or self._is_entry(path)):
                raise ValueError(f"{prefix(side)}{path} is {held!r:.60}, but must be a mapping")

    def carry(self, document: Document, side: Side) -> tuple[dict[str, Any], tuple[Remark, ...]]:
        """A checked document of `side` in the other shape, and what was left behind."""
        carried: dict[str, Any] = {}
        taken: set[Place] = set()
        reasons: dict[Place, str] = {}
        other = NESTED if side == FLAT else FLAT
        for row in self._moves(document, side):
            here, there = row.on(side), row.on(other)
            value = here.read(document)
            if value is ABSENT:
                continue
            said, held = row.leave(side, value), there.read(carried)
            section = get(carried, there.section)
            if said is ABSENT:
                reasons[here] = f"{value!r:.60} cannot be said there"
            elif held is not ABSENT and held != said:
                reasons[here] = f"{prefix(other)}{there} has another value already"
            elif section is not ABSENT and not isinstance(section, Mapping):
                reasons[here] = f"{prefix(other)}{there.section} is no mapping"
            else:
                carried = carried if held == said else there.write(carried, said)
                taken.add(here)
        left = [here for here in self._places(document, side) if here not in taken]
        return carried, tuple(Remark(f"{prefix(side)}{here}", self._why(here, side, reasons)) for here in left)

    def sections(self, side: Side) -> set[str]:
        """The paths of all mappings that some row looks into."""
        inside = {row.on(side) if isinstance(row, Rest) else row.on(side).section for row in self.rows}
        names = [str(path).split(".") for path in inside if path]
        return {".".join(path[: depth + 1]) for path in names for depth in range(len(path))}

    def _moves(self, document: Document, side: Side) -> Iterator[Move]:
        """The rows, with each Rest written out for what the document holds."""
        named = {row.on(side) for row in self.rows if isinstance(row, Move)}
        for row in self.rows:
            if isinstance(row, Move):
                yield row
                continue
            held = get(document, row.on(side))
            if isinstance(held, Mapping):
                for key in held:
                    if Place(row.on(side), key) not in named:
                        yield Move(Place(row.flat, key), Place(row.trainer, key))
            elif row.on(side) in self.loose:
                yield Move(place(row.flat), place(row.trainer))

    def _is_entry(self, path: str) -> bool:
        return path.startswith(tuple(f"{each}." for each in self.lists))

    def _places(self, document: Document, side: Side) -> Iterator[Place]:
        """Every field of the document, sections taken apart; one that holds nothing says nothing."""
        sections = self.sections(side)

        def look(held: Mapping[str, Any], path: str) -> Iterator[Place]:
            for key, value in held.items():
                here = Place(path, key)
                inner = str(here) in sections
                if inner and isinstance(value, Mapping) and value:
                    yield from look(value, str(here))
                elif value or not inner or self._is_entry(str(here)):
                    yield here

        return look(document, "")

    def _why(self, here: Place, side: Side, reasons: Mapping[Place, str]) -> str:
        return reasons.get(here) or self.reasons.get(str(here)) or self.why[side]


def prefix(side: Side) -> str:
    """What stands before a path of this side in the user's file."""
    return "" if side == FLAT else "trainer."
