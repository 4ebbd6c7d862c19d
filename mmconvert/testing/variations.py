"""Variations of a config: other values for its fields, as its schema and its rules offer them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from mmconvert.configs import Translation
from mmconvert.converter import Converter
from mmconvert.errors import InputRefused
from mmconvert.paths import ABSENT, get, put
from mmconvert.rules import Rule
from mmconvert.spec import A, Config
from mmconvert.testing.check import translated

# How many fields of a config are changed at most at once.
AT_ONCE = 3


def with_variations(converter: Converter, configs: Sequence[Config]) -> Iterator[Translation]:
    """Every config, translated, and variations of it that the other side can say.

    The changes that there are to its fields are shuffled, and dealt out a few at a time.
    """
    draw = Random(0)
    for config in configs:
        given = translated(converter, A, config)
        yield given
        changes = [
            (path, value)
            for rule in converter.configs.rules
            for path in rule.a
            for value in _others(converter, given.source, rule, path)
        ]
        draw.shuffle(changes)
        while changes:
            varied = config
            for path, value in [changes.pop() for _ in range(min(draw.randint(1, AT_ONCE), len(changes)))]:
                varied = put(varied, path, value)
            with suppress(InputRefused):
                yield converter.configs.translate(A, varied)


def merged(converter: Converter, config: Config, canonical: Config, rule: Rule) -> Iterator[str]:
    """Values of one field, the others being as they are, for which a rule gives the same."""
    space = converter.configs.a
    for path in rule.a:
        said: list[tuple[Any, Any]] = []
        for value in (ABSENT, *_others(converter, canonical, rule, path)):
            try:
                read = canonical if value is ABSENT else space.read(put(config, path, value))
                given = rule.forward(read)
            except ValueError:
                continue
            found = get(read, path)
            for other, same in said:
                if other != found and same == given:
                    yield f"{path} {other!r} and {found!r} both become {dict(given)!r}"
            if found not in rule.also:
                said.append((found, given))


def _others(converter: Converter, canonical: Config, rule: Rule, path: str) -> Sequence[Any]:
    """Other values that a field might hold: those that its schema or a refusal of its rule lists, or near ones."""
    value = get(canonical, path)
    choices = _choices(converter, canonical, path)
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 2 * value, value // 2, -value, *choices]
    if isinstance(value, float):
        return [2 * value, value / 2, *choices]
    return [*choices, *(_named(rule, canonical, path) if isinstance(value, str) else ())]


def _choices(converter: Converter, canonical: Config, path: str) -> Iterator[Any]:
    for part, schema in converter.configs.a.schemas(canonical).items():
        if part == "" or path.startswith(f"{part}."):
            yield from schema.choices(path.removeprefix(f"{part}."))


def _named(rule: Rule, canonical: Config, path: str) -> list[str]:
    """What a rule offers in place of a word that it does not know."""
    try:
        rule.forward(put(canonical, path, "no such word"))
    except ValueError as error:
        return str(error).partition("known: ")[2].split(", ")
    return []
