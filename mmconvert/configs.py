"""Config tables, applied both ways.

A rule reads one side's config and gives fields of the other. `translate` collects what all rules give, then goes back
again from the result: every field of the source that a rule owns must come back as it was, so that a value that the
target cannot say is refused by name and no rule needs a check of its own. What no rule owns is accounted for: it equals
its class default, is known not to matter, travels with the checkpoint, or is refused. Nothing is modified in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass

from mmconvert.errors import InputRefused
from mmconvert.paths import ABSENT, differing, fields, get, put
from mmconvert.remark import Remark
from mmconvert.rules import ANYTHING, ConfigRow, Ignored, Limited, Rule
from mmconvert.schema import Schema
from mmconvert.spec import A, B, Config, Side

UNREAD = "written by older converters; no class reads it there"


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
        self, side: Side, config: Config, names: frozenset[str] = frozenset(), where: str = "config"
    ) -> Translation:
        """Take a config of `side` to the other one.

        `names` are the checkpoint's tensors. Raises InputRefused, naming the file (`where`) and the field, for what is
        invalid or has no counterpart.
        """
        try:
            return self._translated(side, config, names)
        except ValueError as error:
            raise InputRefused(f"{where}: {error}") from error

    def differences(self, side: Side, expected: Config, actual: Config) -> Iterator[str]:
        """Where two configs of `side`, in canonical form, say different things."""
        for rule in self.rules:
            for path in rule.owned(side):
                wanted, value = get(expected, path), get(actual, path)
                if not any(each is ANYTHING or each == value for each in (wanted, *rule.also)):
                    yield from _difference(path, value, wanted)

    def _translated(self, side: Side, config: Config, names: frozenset[str]) -> Translation:
        other = B if side == A else A
        source = self.space(side).read(config, names)
        target = self._apply(side, source)
        complete = self.space(other).read(target)
        again = self.space(side).read(self._apply(other, complete), names)
        overruled = self._check_round_trip(side, source, again)
        dropped, carried = self._account(side, self.space(side).spell(config, names))
        aloud = {path for row in self.rows if isinstance(row, Ignored) and row.aloud for path in row.paths}
        warnings = tuple(f"{each.subject} is dropped: {each.why}" for each in dropped if each.subject in aloud)
        return Translation(source, target, (*overruled, *dropped), carried, warnings)

    def _apply(self, side: Side, source: Config) -> Config:
        target: Config = {}
        for rule in self.rules:
            for path, value in rule.leave(side)(source).items():
                if value is not ABSENT:
                    target = put(target, path, value)
        return target

    def _check_round_trip(self, side: Side, source: Config, again: Config) -> tuple[Remark, ...]:
        """Refuse a field that does not come back as it was; give those that may come back otherwise, and do."""
        overruled = []
        for rule in self.rules:
            for path in rule.owned(side):
                found, back = get(source, path), get(again, path)
                if found is ABSENT or found == back or (found is None and back is ABSENT):
                    continue
                if not any(each is ANYTHING or each == found for each in rule.also):
                    raise ValueError(
                        f"{path} is {found!r}, which cannot be said on the other side (it would become {back!r})"
                    )
                if side == B:
                    overruled.append(
                        Remark(path, f"{found!r} is a matter of this side alone; the way back gives {back!r}")
                    )
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
                dropped.append(Remark(path, UNREAD))
            elif value is not None and value != schema.default(inner):
                raise ValueError(f"{path} is {value!r}, which has no counterpart on the other side")
        return tuple(dropped), tuple(carried)


@dataclass(frozen=True)
class Unchanged(ConfigTable):
    """Between releases of one format: every field stays, but for those that no release's classes read."""

    def _translated(self, side: Side, config: Config, names: frozenset[str]) -> Translation:
        source, target = self.a.read(config, names), dict(config)
        unread: list[str] = []
        for part, schema in self.a.schemas(config).items():
            if get(target, part) is not ABSENT:
                kept, paths = schema.without_deprecated(get(target, part))
                target = kept if part == "" else put(target, part, kept)
                unread += [f"{part}.{path}" if part else path for path in paths]
        return Translation(source, target, tuple(Remark(path, UNREAD) for path in unread))

    def differences(self, side: Side, expected: Config, actual: Config) -> Iterator[str]:
        for path, (wanted, value) in differing(_said(expected), _said(actual)):
            yield f"{path} is {value!r}, expected {wanted!r}"


def _said(config: object) -> object:
    """A config without its fields that are null, which say no more than absent ones; a list's items all count."""
    if isinstance(config, Mapping):
        return {name: _said(value) for name, value in config.items() if value is not None}
    return [_said(item) for item in config] if isinstance(config, list) else config


def _difference(path: str, value: object, wanted: object) -> Iterator[str]:
    if wanted != value and not (wanted in (None, ABSENT) and value in (None, ABSENT)):
        yield f"{path} is {value!r}, expected {wanted!r}"


def _schema_of(schemas: Mapping[str, Schema], path: str) -> tuple[Schema, str]:
    """The schema of the part that a path lies in, and the path inside it."""
    best = max((part for part in schemas if part == "" or path.startswith(part + ".")), key=len)
    return schemas[best], path[len(best) + 1 :] if best else path
