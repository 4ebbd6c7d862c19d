"""Where each tensor of the target comes from: the tables of a path, expanded and put through each other.

A path of several converters is one pass over the bytes: each converter's tables are written out for its config, and
the resulting dictionaries are composed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mmconvert.configs import Translation
from mmconvert.errors import InputRefused
from mmconvert.plans import Step
from mmconvert.registry import Hop
from mmconvert.rows import Index, compose, inverse
from mmconvert.spec import A, Config, Expansion, Pair, TooMany, Twin, expand

# Lists of rows put through each other, by which ones they were: the layers share theirs.
Composed = dict[tuple[int, int, int], Index | None]


@dataclass(frozen=True)
class Origin:
    """The source of one target tensor: its key, the order of the target's rows, and the pair that says so.

    `rows` are the source's, where there is an order of them. `steps` are what each converter of the path makes of it.
    """

    key: str
    index: Index | None
    rows: int
    rule: str
    pair: Pair
    steps: tuple[Step, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The target's shape."""
        return self.pair.shape if self.index is None else (len(self.index), *self.pair.shape[1:])


@dataclass(frozen=True)
class Leg:
    """One converter of a path, with its configs and tables written out.

    `config_a` and `config_b` are the two sides' configs in canonical form.
    """

    hop: Hop
    configs: Translation
    config_a: Config
    config_b: Config
    expansion: Expansion

    def expected(self) -> Mapping[str, Pair]:
        """Every tensor that the leg's source must hold."""
        return self.expansion.by_name[self.hop.side]

    def twins_read(self) -> Iterable[Twin]:
        return (twin for twin in self.expansion.twins if twin.side == self.hop.side)

    def origins(self) -> dict[str, Origin]:
        """The leg's target tensors, in the order of the tables, twins after the tensor that they repeat."""
        found: dict[str, Origin] = {}
        written = {}
        undone: dict[tuple[int, int | None], Index] = {}
        for twin in self.expansion.twins:
            if twin.side == self.hop.other and twin.written:
                written[twin.of] = twin
        for pair in self.expansion.pairs:
            if pair.b_only and self.hop.other == A:
                continue
            index, rule = pair.index, pair.rule
            if index is not None and self.hop.side != A:
                # The layers share one list, which may be long.
                which = id(index), pair.a_rows
                if which not in undone:
                    undone[which] = inverse(index, pair.a_rows)
                index, rule = undone[which], pair.rule_back
            source, target = pair.name(self.hop.side), pair.name(self.hop.other)
            found[target] = self._origin(source, target, index, rule, pair)
            if target in written:
                twin = written[target]
                rule = f"second copy of {target}: {twin.why}"
                found[twin.key] = self._origin(source, twin.key, index, rule, pair)
        return found

    def _origin(self, source: str, target: str, index: Index | None, rule: str, pair: Pair) -> Origin:
        rows = next(iter(pair.shape_on(self.hop.side)), 1)
        return Origin(source, index, rows, rule, pair, (Step(str(self.hop), source, target, rule, pair.source),))


def translate(
    hops: Iterable[Hop], config: Config, names: frozenset[str], where: str, only: str | None = None
) -> tuple[Leg, ...]:
    """Take a config along the path and write out every table, or what of it belongs to `only` one part of the model.

    Raises InputRefused for what cannot be said.
    """
    legs: list[Leg] = []
    for hop in hops:
        table = hop.converter.configs
        configs = table.translate(hop.side, config, names, where)
        target = table.space(hop.other).read(configs.target)
        config_a, config_b = (configs.source, target) if hop.side == A else (target, configs.source)
        try:
            expansion = expand(hop.converter.tables, config_b, config_a)
        except TooMany as error:
            raise InputRefused(f"{where}: {error}; is it a config of this model?") from error
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise InputRefused(f"{where}: sizes that tensors follow from are absent, null or zero ({error})") from error
        expansion = expansion if only is None else expansion.only(only)
        legs.append(Leg(hop, configs, config_a, config_b, expansion))
        config, names = configs.target, frozenset()
    return tuple(legs)


def origins(legs: Iterable[Leg]) -> dict[str, Origin]:
    """The path's target tensors in terms of its source."""
    first, *rest = legs
    through = first.origins()
    for leg in rest:
        composed: Composed = {}
        through = {target: _follow(through[origin.key], origin, composed) for target, origin in leg.origins().items()}
    return through


def _follow(before: Origin, after: Origin, composed: Composed) -> Origin:
    which = id(before.index), id(after.index), before.rows
    if which not in composed:
        composed[which] = compose(before.index, after.index, before.rows)
    index = composed[which]
    rules = [origin.rule for origin in (before, after) if origin.rule != "copied"]
    undone = index is None and before.index is not None
    rule = "copied" if undone else "; ".join(rules) or "copied"
    return Origin(before.key, index, before.rows, rule, before.pair, (*before.steps, *after.steps))
