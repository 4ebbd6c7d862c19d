"""Config tables, applied both ways.

A rule reads one side's config and gives fields of the other. `translate` collects what all rules give, then goes back
again from the result: every field of the source that a rule owns must come back as it was, so that a value that the
target cannot say is refused by name and no rule needs a check of its own. What no rule owns is accounted for: it equals
its class default, is known not to matter, travels with the checkpoint, or is refused. Nothing is modified in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from mmconvert.errors import InputRefused
from mmconvert.releases import Release
from mmconvert.remark import Remark
from mmconvert.schema import Schema
from mmconvert.spec import A, B, Config, Side

Values = Mapping[str, Any]
Reading = Callable[[Config], Values]


class _Absent:
    def __repr__(self) -> str:
        return "absent"


# What a rule gives for a field that must not be written, and what `get` finds where there is no field.
ABSENT = _Absent()


@dataclass(frozen=True)
class Rule:
    """One correspondence between two configs.

    `a` and `b` are the dotted paths that it owns on each side. `forward` takes side a's whole config, with defaults
    filled in, and gives values for `b`; `back` the other way. Either raises ValueError for what cannot be said.
    `also` lists further values that a path may hold and that mean the same; `since` is the first release that knows
    the fields of side b.
    """

    a: tuple[str, ...]
    b: tuple[str, ...]
    forward: Reading
    back: Reading
    also: tuple[Any, ...] = ()
    since: Release | None = None

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
    """One quantity under two names; `values` translates the spellings of a choice, one to one."""

    def reading(path: str, other: str, names: Mapping[Any, Any] | None) -> Reading:
        def read(config: Config) -> Values:
            value = get(config, path)
            if names is None:
                return {other: value}
            if value not in names:
                raise ValueError(f"{path} is {value!r}, which has no counterpart; known: {', '.join(map(str, names))}")
            return {other: names[value]}

        return read

    inverse = None if values is None else {ours: theirs for theirs, ours in values.items()}
    return Rule((a,), (b,), reading(a, b, values), reading(b, a, inverse))


def group(a: Sequence[str], b: Sequence[str], forward: Reading, back: Reading) -> Rule:
    """Fields that only make sense read together."""
    return Rule(tuple(a), tuple(b), forward, back)


def derived(
    side: Side, path: str, value: Callable[[Config], Any], also: Sequence[Any] = (), since: Release | None = None
) -> Rule:
    """A field that exists on `side` only and follows from the other side's config."""

    def write(config: Config) -> Values:
        return {path: value(config)}

    def nothing(config: Config) -> Values:
        return {}

    if side == B:
        return Rule((), (path,), write, nothing, tuple(also), since)
    return Rule((path,), (), nothing, write, tuple(also), since)


def const(side: Side, path: str, value: Any, also: Sequence[Any] = (), since: Release | None = None) -> Rule:
    """A field that always holds `value` on `side`; `also` lists what else may be read there."""
    return derived(side, path, lambda _: value, also, since)


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
            try:
                return {there + path: value for path, value in read(get(config, here[:-1])).items()}
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


@dataclass(frozen=True)
class Space:
    """The configs of one side.

    `schemas` gives the schema of each part, by its path in the whole (`""` for all of it). `spell` brings every
    spelling that is read to the one that the rules know; it sees the names of the checkpoint's tensors, for configs
    that leave a thing to them.
    """

    schemas: Callable[[Config], Mapping[str, Schema]]
    spell: Callable[[Config, frozenset[str]], Config] = lambda config, names: config

    def read(self, config: Config, names: frozenset[str] = frozenset()) -> Config:
        """The config in canonical form: spelled as the rules expect, valid, class defaults filled in."""
        spelled = self.spell(config, names)
        whole = deepcopy(dict(spelled))
        for path, schema in self.schemas(spelled).items():
            part = schema.complete(get(whole, path), path)
            whole = dict(part) if path == "" else put(whole, path, part)
        return whole


@dataclass(frozen=True)
class Translation:
    """A config on both sides (canonical `source`, full `target`) and what became of fields without a counterpart."""

    source: Config
    target: Config
    dropped: tuple[Remark, ...] = ()
    carried: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConfigTable:
    """All rules of a converter, with the config spaces of its two sides."""

    rows: tuple[ConfigRow, ...]
    a: Space
    b: Space

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(row for row in self.rows if isinstance(row, Rule))

    def space(self, side: Side) -> Space:
        return self.a if side == A else self.b

    def translate(
        self,
        side: Side,
        config: Config,
        release: Release | None = None,
        names: frozenset[str] = frozenset(),
        where: str = "config",
    ) -> Translation:
        """Take a config of `side` to the other one.

        `release` is side b's; `names` are the checkpoint's tensors. Raises InputRefused, naming the file (`where`) and
        the field, for what is invalid or has no counterpart.
        """
        other = B if side == A else A
        try:
            source = self.space(side).read(config, names)
            target = self._apply(side, source, release)
            complete = self.space(other).read(target)
            again = self.space(side).read(self._apply(other, complete, release), names)
            overruled = self._check_round_trip(side, source, again, release)
            dropped, carried = self._account(side, self.space(side).spell(config, names))
        except ValueError as error:
            raise InputRefused(f"{where}: {error}") from error
        aloud = {path for row in self.rows if isinstance(row, Ignored) and row.aloud for path in row.paths}
        warnings = tuple(f"{each.subject} is dropped: {each.why}" for each in dropped if each.subject in aloud)
        return Translation(source, target, (*overruled, *dropped), carried, warnings)

    def _apply(self, side: Side, source: Config, release: Release | None) -> Config:
        target: Config = {}
        for rule in self.rules:
            if rule.since is None or release is None or release >= rule.since:
                for path, value in rule.leave(side)(source).items():
                    if value is not ABSENT:
                        target = put(target, path, value)
        return target

    def _check_round_trip(
        self, side: Side, source: Config, again: Config, release: Release | None
    ) -> tuple[Remark, ...]:
        """Refuse a field that does not come back as it was; give those that may come back otherwise, and do."""
        overruled = []
        for rule in self.rules:
            if rule.since is not None and release is not None and release < rule.since:
                continue
            for path in rule.owned(side):
                found, back = get(source, path), get(again, path)
                if found is ABSENT or found == back or (found is None and back is ABSENT):
                    continue
                if not any(each is ANYTHING or each == found for each in rule.also):
                    raise ValueError(
                        f"{path} is {found!r}, which cannot be said on the other side (it would become {back!r})"
                    )
                if side == B:
                    overruled.append(Remark(path, f"{found!r} is a matter of CS alone; the way back gives {back!r}"))
        return tuple(overruled)

    def _account(self, side: Side, config: Config) -> tuple[tuple[Remark, ...], tuple[str, ...]]:
        """What becomes of the fields that no rule owns."""
        owned = {path for rule in self.rules for path in rule.owned(side)}
        reasons = {
            path: row.why for row in self.rows if isinstance(row, Ignored) and row.side == side for path in row.paths
        }
        limits = {row.path: row for row in self.rows if isinstance(row, Limited) and row.side == side}
        dropped, carried = [], []
        schemas = self.space(side).schemas(config)
        for path, value in fields(config, owned | reasons.keys() | limits.keys()):
            schema, inner = _schema_of(schemas, path)
            if path in owned:
                continue
            if path in limits:
                if value not in limits[path].allowed:
                    raise ValueError(f"{path} is {value!r}: {limits[path].why}")
                if side == B:
                    continue
            if path in reasons:
                dropped.append(Remark(path, reasons[path]))
            elif side == A:
                carried.append(path)
            elif schema.is_deprecated(inner):
                dropped.append(Remark(path, "written by older converters; no class of any release reads it"))
            elif value is not None and value != schema.default(inner):
                raise ValueError(f"{path} is {value!r}, which has no counterpart on the other side")
        return tuple(dropped), tuple(carried)


def _schema_of(schemas: Mapping[str, Schema], path: str) -> tuple[Schema, str]:
    """The schema of the part that a path lies in, and the path inside it."""
    best = max((part for part in schemas if part == "" or path.startswith(part + ".")), key=len)
    return schemas[best], path[len(best) + 1 :] if best else path


def get(config: Any, path: str) -> Any:
    """The value at a dotted path (numbers index lists), or ABSENT."""
    for name in path.split(".") if path else ():
        if isinstance(config, Mapping) and name in config:
            config = config[name]
        elif isinstance(config, list) and name.isdigit() and int(name) < len(config):
            config = config[int(name)]
        else:
            return ABSENT
    return config


def put(config: Any, path: str, value: Any) -> Any:
    """A copy of the config with the value at a dotted path; what is missing on the way is made."""
    name, _, rest = path.partition(".")
    inner = get(config, name)
    new = put({} if inner is ABSENT else inner, rest, value) if rest else value
    if isinstance(config, list) or (name.isdigit() and not config):
        items = list(config)
        items[int(name) : int(name) + 1] = [new]
        return items
    return {**config, name: new}


def fields(config: Config, known: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Every (path, value) of a config, looking only as deep inside a value as some of the `known` paths lie."""
    inner = {path[:at] for path in known for at in range(len(path)) if path[at] == "."}

    def look(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if path and path not in inner:
            yield path, value
        elif isinstance(value, Mapping | list):
            for name, item in value.items() if isinstance(value, Mapping) else enumerate(value):
                yield from look(item, f"{path}.{name}" if path else str(name))

    return look(config, "")
