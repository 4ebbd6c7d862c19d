"""The vocabulary of tables: what a converter is made of.

A converter joins two formats of one model, side `A` and side `B`. Its tensor rows name a tensor on both sides and give
its shape in named sizes; its config rules (see `mmconvert.rules`) do the same for configs. `Table` holds the rows and
rules of one architecture; `mount` puts a table under a prefix. Nothing here knows a direction: the engine reads the
same rows from left to right and from right to left.

In a pattern, `{i}` ranges over the size named `i`, `{2j}` is twice `{j}`, and `{p}` stands for `weight`, and for
`bias` too where the row's `bias` says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import groupby, product
from math import prod
from typing import Any, Literal

from mmconvert.rows import Index, RowRule

Side = Literal["a", "b"]
A: Side = "a"
B: Side = "b"

Config = Mapping[str, Any]
Sizes = Mapping[str, Any]

_CAPTURE = re.compile(r"\{(\d*)([a-z])\}")


@dataclass(frozen=True)
class Key:
    """One tensor with a name on both sides."""

    a: str
    b: str
    shape: str
    rows: RowRule | None = None
    bias: bool | str = False
    when: str | None = None
    init: str | None = None


@dataclass(frozen=True)
class Only:
    """Tensors that exist on one side only and are left behind, with the reason; `*` matches anything."""

    side: Side
    pattern: str
    why: str


@dataclass(frozen=True)
class Twin:
    """On `side`, `key` holds the same bytes as `of`.

    Writing that side, `key` is written as well if `written`. Reading it, `key` may be absent if `optional`, and where
    it is present its bytes must equal those of `of`.
    """

    side: Side
    key: str
    of: str
    why: str
    when: str | None = None
    written: bool = True
    optional: bool = True


Row = Key | Only | Twin


def key(
    a: str,
    b: str,
    shape: str,
    rows: RowRule | None = None,
    *,
    bias: bool | str = False,
    when: str | None = None,
    init: str | None = None,
) -> Key:
    """A tensor with a name on both sides.

    `shape` names sizes ("Q H"); a bias has the first of them. `rows` orders the rows of side b. `bias` and `when` may
    name a size that is true or false by config. `init` is the name under which a missing tensor may be invented.
    """
    return Key(a, b, shape, rows, bias, when, init)


def only(side: Side, pattern: str, *, why: str) -> Only:
    """Tensors of one side that the other has no room for."""
    return Only(side, pattern, why)


def twin(
    side: Side,
    key: str,
    *,
    of: str,
    why: str,
    when: str | None = None,
    written: bool = True,
    optional: bool = True,
) -> Twin:
    """A second copy of a tensor on one side."""
    return Twin(side, key, of, why, when, written, optional)


@dataclass(frozen=True)
class Table:
    """The rows of one architecture, with the function that reads their sizes from side a's config."""

    rows: tuple[Row, ...]
    sizes: Callable[[Config], Sizes]
    part: str = ""
    a: str = ""
    b: str = ""
    a_config: str = ""


def table(*rows: Row, sizes: Callable[[Config], Sizes]) -> Table:
    return Table(rows, sizes)


def mount(table: Table, *, part: str, a: str = "", b: str = "", a_config: str = "") -> Table:
    """The table with its keys under a prefix on each side, sized by the part of side a's config at `a_config`.

    `part` is what users call these tensors in options (`vision`, `projector`, `text`).
    """
    return replace(table, part=part, a=a + table.a, b=b + table.b, a_config=a_config)


@dataclass(frozen=True)
class Pair:
    """One tensor, concretely: its name on both sides, its shape, and the order of side b's rows (None: the same)."""

    a: str
    b: str
    shape: tuple[int, ...]
    index: Index | None
    rule: str
    part: str
    init: str | None
    fan_in: int

    def name(self, side: Side) -> str:
        return self.a if side == A else self.b


@dataclass(frozen=True)
class Expansion:
    """All tables of a converter, written out for one config."""

    pairs: tuple[Pair, ...]
    twins: tuple[Twin, ...] = ()
    left_behind: tuple[Only, ...] = ()
    by_name: Mapping[Side, Mapping[str, Pair]] = field(default_factory=dict)

    def dropped(self, side: Side, name: str) -> str | None:
        """Why a tensor of this name on `side` is left behind; None if it is not."""
        for row in self.left_behind:
            if row.side == side and fnmatchcase(name, row.pattern):
                return row.why
        return None


def expand(tables: Sequence[Table], config: Config) -> Expansion:
    """Write every table out for one config of side a.

    The result gives the complete list of keys and shapes of either side: what a checkpoint of this config must hold.
    """
    pairs: list[Pair] = []
    twins: list[Twin] = []
    left_behind: list[Only] = []
    for each in tables:
        sizes = each.sizes(config[each.a_config] if each.a_config else config)
        keys = [row for row in each.rows if isinstance(row, Key) and (row.when is None or sizes[row.when])]
        for layered, run in groupby(keys, lambda row: "i" in captures(row.a)):
            found = [pair for row in run for pair in _pairs(row, each, sizes)]
            # Rows that stand together and capture a layer come out layer by layer, as the model runs.
            pairs += [pair for _, pair in (sorted(found, key=lambda item: item[0]) if layered else found)]
        for row in each.rows:
            if isinstance(row, Twin) and (row.when is None or sizes[row.when]):
                prefix = each.a if row.side == A else each.b
                twins.append(replace(row, key=prefix + row.key, of=prefix + row.of))
            elif isinstance(row, Only):
                prefix = each.a if row.side == A else each.b
                left_behind.append(replace(row, pattern=prefix + _CAPTURE.sub("*", row.pattern)))
    by_name: dict[Side, dict[str, Pair]] = {side: {pair.name(side): pair for pair in pairs} for side in (A, B)}
    return Expansion(tuple(pairs), tuple(twins), tuple(left_behind), by_name)


def _pairs(row: Key, each: Table, sizes: Sizes) -> Iterator[tuple[int, Pair]]:
    weight_shape = tuple(int(sizes[name]) for name in row.shape.split())
    for values in _captures(row, sizes):
        shape = weight_shape[:1] if values.get("p") == "bias" else weight_shape
        index, rule = None, "copied"
        if row.rows is not None:
            index, rule = row.rows.for_rows(shape[0], sizes)
        pair = Pair(
            a=each.a + _fill(row.a, values),
            b=each.b + _fill(row.b, values),
            shape=shape,
            index=index,
            rule=rule,
            part=each.part,
            init=row.init,
            fan_in=prod(weight_shape[1:]),
        )
        yield values.get("i", 0), pair


def _captures(row: Key, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Every combination of values of the row's captures."""
    names = sorted({name for _, name in _CAPTURE.findall(row.a + row.b)})
    domains: list[Sequence[Any]] = []
    for name in names:
        if name == "p":
            has_bias = sizes[row.bias] if isinstance(row.bias, str) else row.bias
            domains.append(("weight", "bias") if has_bias else ("weight",))
        else:
            size = sizes[name]
            domains.append(range(size) if isinstance(size, int) else size)
    for values in product(*domains):
        yield dict(zip(names, values, strict=True))


def _fill(pattern: str, values: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        factor, name = match.groups()
        return str(int(factor) * values[name] if factor else values[name])

    return _CAPTURE.sub(value, pattern)


def captures(pattern: str) -> set[str]:
    """The names captured by a pattern; both sides of a row must capture the same."""
    return {name for _, name in _CAPTURE.findall(pattern)}
