"""The vocabulary of config tables: what a row of one can say.

A rule reads one side's config and gives fields of the other; it serves both directions. The other kinds of row say what
becomes of fields that have no counterpart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmconvert.paths import ABSENT, get
from mmconvert.spec import A, B, Config, Side

Values = Mapping[str, Any]
Reading = Callable[[Config], Values]


@dataclass(frozen=True)
class Rule:
    """One correspondence between two configs.

    `a` and `b` are the dotted paths that it owns on each side. `forward` takes side a's whole config, with defaults
    filled in, and gives values for `b`; `back` the other way. Either raises ValueError for what cannot be said.
    `also` lists further values that a path may hold and that mean the same.
    """

    a: tuple[str, ...]
    b: tuple[str, ...]
    forward: Reading
    back: Reading
    also: tuple[Any, ...] = ()

    def owned(self, side: Side) -> tuple[str, ...]:
        return self.a if side == A else self.b

    def leave(self, side: Side) -> Reading:
        return self.forward if side == A else self.back


@dataclass(frozen=True)
class Ignored:
    """Fields of `side` that carry nothing the other side could hold: dropped, with the reason; some `aloud`."""

    side: Side
    paths: tuple[str, ...]
    why: str
    aloud: bool = False


@dataclass(frozen=True)
class Fallback:
    """A field of side a that is written only where no original config travelled with the checkpoint."""

    path: str
    value: Any


@dataclass(frozen=True)
class Limited:
    """A field of `side` that travels as it is, but only with a value that the other side's model computes too."""

    side: Side
    path: str
    allowed: tuple[Any, ...]
    why: str


ConfigRow = Rule | Ignored | Fallback | Limited

# In `also`: whatever the field holds, it means the same to the other side.
ANYTHING = object()


def same(*paths: str) -> tuple[Rule, ...]:
    """Fields with one name on both sides."""
    return tuple(renamed(path, path) for path in paths)


def renamed(a: str, b: str, values: Mapping[Any, Any] | None = None) -> Rule:
    """One quantity under two names; `values` translates the spellings of a choice.

    Raises ValueError if it does so otherwise than one to one: the way back could not tell two choices apart.
    """
    inverse = None if values is None else {ours: theirs for theirs, ours in values.items()}
    if values is not None and inverse is not None and len(inverse) < len(values):
        raise ValueError(f"{a}: two of {', '.join(map(str, values))} become the same {b}")

    def reading(path: str, other: str, names: Mapping[Any, Any] | None) -> Reading:
        def read(config: Config) -> Values:
            value = get(config, path)
            if names is None:
                return {other: value}
            if value not in names:
                raise ValueError(f"{path} is {value!r}, which has no counterpart; known: {', '.join(map(str, names))}")
            return {other: names[value]}

        return read

    return Rule((a,), (b,), reading(a, b, values), reading(b, a, inverse))


def group(a: Sequence[str], b: Sequence[str], forward: Reading, back: Reading) -> Rule:
    """Fields that only make sense read together."""
    return Rule(tuple(a), tuple(b), forward, back)


def derived(side: Side, path: str, value: Callable[[Config], Any], also: Sequence[Any] = ()) -> Rule:
    """A field that exists on `side` only and follows from the other side's config."""

    def write(config: Config) -> Values:
        return {path: value(config)}

    def nothing(config: Config) -> Values:
        return {}

    if side == B:
        return Rule((), (path,), write, nothing, tuple(also))
    return Rule((path,), (), nothing, write, tuple(also))


def const(side: Side, path: str, value: Any, also: Sequence[Any] = ()) -> Rule:
    """A field that always holds `value` on `side`; `also` lists what else may be read there."""
    return derived(side, path, lambda _: value, also)


def ignored(side: Side, *paths: str, why: str, aloud: bool = False) -> Ignored:
    return Ignored(side, paths, why, aloud)


def limited(side: Side, path: str, *allowed: Any, why: str) -> Limited:
    return Limited(side, path, allowed, why)


def at(rows: Sequence[ConfigRow], a: str, b: str) -> tuple[ConfigRow, ...]:
    """The rows for a config that lies inside a larger one: at path `a` of side a, at path `b` of side b."""
    return tuple(_at(row, a + ".", b + ".") for row in rows)


def _at(row: ConfigRow, a: str, b: str) -> ConfigRow:
    if isinstance(row, Fallback):
        return replace(row, path=a + row.path)
    if isinstance(row, Ignored):
        prefix = a if row.side == A else b
        return replace(row, paths=tuple(prefix + path for path in row.paths))
    if isinstance(row, Limited):
        return replace(row, path=(a if row.side == A else b) + row.path)

    def inside(read: Reading, here: str, there: str) -> Reading:
        def moved(config: Config) -> Values:
            part = get(config, here[:-1])
            if part is ABSENT or part is None:
                raise ValueError(f"{here[:-1]} is absent")
            try:
                return {there + path: value for path, value in read(part).items()}
            except ValueError as error:
                raise ValueError(here + str(error)) from error

        return moved

    return replace(
        row,
        a=tuple(a + path for path in row.a),
        b=tuple(b + path for path in row.b),
        forward=inside(row.forward, a, b),
        back=inside(row.back, b, a),
    )
