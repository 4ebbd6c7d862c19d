"""The vocabulary of tables: what a converter is made of.

A converter joins two formats of one model, side `A` and side `B`. Its tensor rows name a tensor on both sides and give
its shape in named sizes; its config rules (see `mmconvert.rules`) do the same for configs. `Table` holds the rows of
one architecture; `mount` puts a table under a prefix. Nothing here knows a direction: the engine reads the same rows
from left to right and from right to left. Sizes are read from side b's config.

In a pattern, `{i}` ranges over the size named `i`, `{2j}` is twice `{j}`, and `{p}` stands for `weight`, and for
`bias` too where the row's `bias` says so. In a shape, `U[j]` is the size `U` of the captured `j`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import groupby, product
from math import prod
from typing import Any, Literal

from mmconvert.paths import ABSENT, get
from mmconvert.rows import Index, RowRule

Side = Literal["a", "b"]
A: Side = "a"
B: Side = "b"

Config = Mapping[str, Any]
Sizes = Mapping[str, Any]

_CAPTURE = re.compile(r"\{(\d*)([a-z])\}")

# The largest models of these families have some 2,000 tensors. A small config can demand millions of them.
MAX_PAIRS = 10_000
# Rows in an order of their own are listed one by one, once for all layers. The largest models have some 20,000 of them.
MAX_ROWS = 1 << 21


class TooMany(ValueError):
    """A config demands more tensors than any model of these families has, or more rows in them."""


@dataclass(frozen=True)
class Key:
    """One tensor with a name on both sides; `b_only` says why side a never holds it, where it does not."""

    a: str
    b: str
    shape: str
    rows: RowRule | None = None
    bias: bool | str = False
    when: str | None = None
    init: str | None = None
    b_only: str | None = None


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


def made(b: str, shape: str, *, init: str, why: str, when: str | None = None) -> Key:
    """A tensor that side b must have and side a never has: made on the way there, if the user says how (`--init`)."""
    return Key(b, b, shape, when=when, init=init, b_only=why)


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


def no_sizes(config: Config) -> Sizes:
    """For tables whose rows have none."""
    return {}


@dataclass(frozen=True)
class Table:
    """The rows of one architecture, with the function that reads their sizes from side b's config.

    `source` says where the facts in it are known from.
    """

    rows: tuple[Row, ...]
    sizes: Callable[[Config], Sizes] = no_sizes
    source: str = ""
    part: str = ""
    a: str = ""
    b: str = ""
    config: str = ""
    a_sizes: Mapping[str, str] = field(default_factory=dict)


def table(*rows: Row, sizes: Callable[[Config], Sizes] = no_sizes, source: str = "") -> Table:
    return Table(rows, sizes, source)


def mount(
    table: Table, *, part: str, a: str = "", b: str = "", config: str = "", a_sizes: Mapping[str, str] | None = None
) -> Table:
    """The table with its keys under a prefix on each side, sized by the part of side b's config at the path `config`.

    `part` is what users call these tensors in options (`vision`, `projector`, `text`). Where the path leads through a
    list, `{e}` in it and in the prefixes ranges over the list. Where the config has nothing at the path, the table has
    no rows. `a_sizes` are sizes that side a has larger, with the path of each in side a's config: tensors that have
    such a number of rows begin with side b's, and the rows that follow are of side a alone.
    """
    return replace(table, part=part, a=a + table.a, b=b + table.b, config=config, a_sizes=a_sizes or {})


def reflected(table: Table) -> Table:
    """The table with side b's keys on both sides and no row moved: what leads from one release of side b to another."""
    rows: list[Row] = []
    for row in table.rows:
        if isinstance(row, Key):
            rows.append(replace(row, a=row.b, rows=None, b_only=None))
        elif row.side == B:
            rows += [replace(row, side=A), row]
    return replace(table, rows=tuple(rows), a=table.b, a_sizes={})


@dataclass(frozen=True)
class Pair:
    """One tensor, concretely: its name on both sides, its shape on side b, and the order of that side's rows.

    `index` is None where they are side a's; where side a has more rows than these, `a_rows` says how many. `rule` says
    in words what happens on the way to side b, and `rule_back` on the way back.
    """

    a: str
    b: str
    shape: tuple[int, ...]
    index: Index | None
    rule: str
    rule_back: str
    part: str
    init: str | None
    fan_in: int
    b_only: str | None = None
    source: str = ""
    a_rows: int | None = None

    def name(self, side: Side) -> str:
        return self.a if side == A else self.b

    def shape_on(self, side: Side) -> tuple[int, ...]:
        return self.shape if side == B or self.a_rows is None else (self.a_rows, *self.shape[1:])


@dataclass(frozen=True)
class Expansion:
    """All tables of a converter, written out for one config."""

    pairs: tuple[Pair, ...]
    twins: tuple[Twin, ...] = ()
    left_behind: tuple[Only, ...] = ()
    by_name: Mapping[Side, Mapping[str, Pair]] = field(default_factory=dict)

    def only(self, part: str) -> Expansion:
        """What of this belongs to one part of the model; the rest is left behind."""
        pairs = tuple(pair for pair in self.pairs if pair.part == part)
        names = {side: {pair.name(side) for pair in pairs} for side in (A, B)}
        twins = tuple(twin for twin in self.twins if twin.of in names[twin.side])
        why = f"belongs to another part than the {part}"
        left_behind = [Only(side, pair.name(side), why) for pair in self.pairs if pair.part != part for side in (A, B)]
        left_behind += [Only(twin.side, twin.key, why) for twin in self.twins if twin not in twins]
        by_name: dict[Side, dict[str, Pair]] = {
            side: {name: pair for name, pair in self.by_name[side].items() if pair.part == part} for side in (A, B)
        }
        return Expansion(pairs, twins, (*self.left_behind, *left_behind), by_name)

    def dropped(self, side: Side, name: str) -> str | None:
        """Why a tensor of this name on `side` is left behind; None if it is not."""
        for row in self.left_behind:
            if row.side == side and fnmatchcase(name, row.pattern):
                return row.why
        return None


def expand(tables: Sequence[Table], config: Config, config_a: Config | None = None) -> Expansion:
    """Write every table out for one config of side b; tables with `a_sizes` need side a's too.

    The result gives the complete list of keys and shapes of either side: what a checkpoint of this config must hold.
    Raises TooMany where that would be more than `MAX_PAIRS`, or `MAX_ROWS` would have to be listed, before they are.
    """
    pairs: list[Pair] = []
    demanded = 0
    listed: dict[int, int] = {}
    twins: list[Twin] = []
    left_behind: list[Only] = []
    for each, part in (found for mounted in tables for found in _mounts(mounted, config)):
        sizes = each.sizes(part)
        a_sizes = {name: int(get(config_a or {}, path)) for name, path in each.a_sizes.items()}
        keys = [row for row in each.rows if isinstance(row, Key) and (row.when is None or sizes[row.when])]
        demanded += sum(prod(map(len, _domains(row, sizes).values())) for row in keys)
        if demanded > MAX_PAIRS:
            raise TooMany(f"it demands more than {MAX_PAIRS:,} tensors, the most that are read")
        for layered, run in groupby(keys, lambda row: "i" in captures(row.a)):
            found = [pair for row in run for pair in _pairs(row, each, sizes, a_sizes)]
            listed |= {id(pair.index): len(pair.index) for _, pair in found if isinstance(pair.index, array)}
            _check_rows(sum(listed.values()))
            # Rows that stand together and capture a layer come out layer by layer, as the model runs.
            pairs += [pair for _, pair in (sorted(found, key=lambda item: item[0]) if layered else found)]
        for row in each.rows:
            if isinstance(row, Twin) and (row.when is None or sizes[row.when]):
                prefix = each.a if row.side == A else each.b
                twins.append(replace(row, key=prefix + row.key, of=prefix + row.of))
            elif isinstance(row, Only):
                prefix = each.a if row.side == A else each.b
                left_behind.append(replace(row, pattern=prefix + _CAPTURE.sub("*", row.pattern)))
    left_behind += [Only(B, pair.b, pair.b_only) for pair in pairs if pair.b_only]
    by_name: dict[Side, dict[str, Pair]] = {
        A: {pair.a: pair for pair in pairs},
        B: {pair.b: pair for pair in pairs if not pair.b_only},
    }
    return Expansion(tuple(pairs), tuple(twins), tuple(left_behind), by_name)


def _mounts(each: Table, config: Config) -> Iterator[tuple[Table, Config]]:
    """The table at every place where it stands, with the part of the config that describes it there."""
    above, listed, _ = each.config.partition(".{e}")
    items = get(config, above) if listed else [config]
    for number in range(len(items) if isinstance(items, list) else 0):
        a, b, path = (_fill(pattern, {"e": number}) for pattern in (each.a, each.b, each.config))
        here = replace(each, a=a, b=b, config=path)
        part = get(config, here.config)
        if part is not None and part is not ABSENT:
            yield here, part


def _pairs(row: Key, each: Table, sizes: Sizes, a_sizes: Mapping[str, int]) -> Iterator[tuple[int, Pair]]:
    for values in _captures(row, sizes):
        names = row.shape.split()
        weight_shape = tuple(_size(name, sizes, values) for name in names)
        shape = weight_shape[:1] if values.get("p") == "bias" else weight_shape
        index, rule, rule_back = None, "copied", "copied"
        a_rows = a_sizes.get(names[0]) if names else None
        if row.rows is not None:
            _check_rows(shape[0])
            index, rule = row.rows.for_rows(shape[0], sizes)
            rule_back = f"{rule} (undone)"
        elif a_rows is not None:
            if a_rows < shape[0]:
                raise ValueError(f"{a_rows} rows cannot begin with {shape[0]}")
            index, rule = range(shape[0]), f"the first {shape[0]} of {a_rows} rows"
            rule_back = f"copied, and {a_rows - shape[0]} rows added, each the mean of the others"
        pair = Pair(
            a=each.a + _fill(row.a, values),
            b=each.b + _fill(row.b, values),
            shape=shape,
            index=index,
            rule=rule,
            rule_back=rule_back,
            part=each.part,
            init=row.init,
            fan_in=prod(weight_shape[1:]),
            b_only=row.b_only,
            source=each.source,
            a_rows=a_rows,
        )
        yield values.get("i", 0), pair


def _check_rows(rows: int) -> None:
    if rows > MAX_ROWS:
        raise TooMany(f"it demands tensors of {rows:,} rows in an order of their own; at most {MAX_ROWS:,} are read")


def _size(name: str, sizes: Sizes, values: Mapping[str, Any]) -> int:
    """A size by its name; `U[j]` is the one of the captured `j`."""
    name, indexed, capture = name.rstrip("]").partition("[")
    return int(sizes[name][values[capture]] if indexed else sizes[name])


def _captures(row: Key, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Every combination of values of the row's captures."""
    domains = _domains(row, sizes)
    for values in product(*domains.values()):
        yield dict(zip(domains, values, strict=True))


def _domains(row: Key, sizes: Sizes) -> dict[str, Sequence[Any]]:
    """The values that each of the row's captures ranges over."""
    domains: dict[str, Sequence[Any]] = {}
    for name in sorted({name for _, name in _CAPTURE.findall(row.a + row.b)}):
        if name == "p":
            has_bias = sizes[row.bias] if isinstance(row.bias, str) else row.bias
            domains[name] = ("weight", "bias") if has_bias else ("weight",)
        else:
            size = sizes[name]
            domains[name] = range(size) if isinstance(size, int) else size
    return domains


def _fill(pattern: str, values: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        factor, name = match.groups()
        return str(int(factor) * values[name] if factor else values[name])

    return _CAPTURE.sub(value, pattern)


def captures(pattern: str) -> set[str]:
    """The names captured by a pattern; both sides of a row must capture the same."""
    return {name for _, name in _CAPTURE.findall(pattern)}
