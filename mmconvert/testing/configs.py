"""What must be true of config tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmconvert import registry, spellings
from mmconvert.converter import Converter
from mmconvert.paths import get
from mmconvert.rules import ANYTHING
from mmconvert.spec import A, B, Config, Side
from mmconvert.testing.check import check, translated
from mmconvert.testing.variations import merged, with_variations


@check
def no_two_values_become_one(converter: Converter, configs: Sequence[Config]) -> Iterator[str]:
    """Two configs that differ in a field that a rule owns say different things to the other side."""
    for config in configs:
        canonical = _canonical(converter, config)
        for rule in converter.configs.rules:
            if rule.b and ANYTHING not in rule.also:
                yield from merged(converter, config, canonical, rule)


@check
def configs_come_back(converter: Converter, configs: Sequence[Config]) -> Iterator[str]:
    """There and back, from either side, every field is what it was; so with other values than those given.

    To translate a config is to take it back too, and fails for a field that is not what it was.
    """
    for translation in with_variations(converter, configs):
        section = translation.target
        again = translated(converter, A, translated(converter, B, section).target).target
        for path in _differing(section, again):
            yield f"{converter.b.name}, there and back: {path} is {get(again, path)!r}, expected {get(section, path)!r}"


@check
def sections_are_valid(converter: Converter, configs: Sequence[Config]) -> Iterator[str]:
    """What is written to side b has no field that its classes refuse or no longer read."""
    for translation in with_variations(converter, configs):
        section = translation.target
        for part, schema in converter.configs.b.schemas(section).items():
            where = f"{part}." if part else ""
            found = schema.problem(get(section, part))
            if found is not None:
                yield f"{converter.b.name}: {where}{found[0]}: {found[1]}"
            for path in schema.without_deprecated(get(section, part))[1]:
                yield f"{converter.b.name}: {where}{path} is written, though no class reads it"


@check
def every_release_says_the_same(converter: Converter, configs: Sequence[Config]) -> Iterator[str]:
    """A section in the spelling of any release reads back as it was."""
    changes = converter.b.changes
    for translation in with_variations(converter, configs):
        section = translation.target
        for release in converter.b_releases:
            again = spellings.read(changes, spellings.write(changes, section, release))
            for path in _differing(section, again):
                yield f"release {release}: {path} is {get(again, path)!r}, expected {get(section, path)!r}"


@check
def configs_are_recognised(converter: Converter, configs: Sequence[Config]) -> Iterator[str]:
    """Configs of either side, in every release's spelling, are known as this model's and as no other model's.

    Formats that are recognised by name only may look like another model's.
    """
    for config in configs:
        if converter.a is not converter.b:
            yield from _strangers(converter, A, config, "")
        section = translated(converter, A, config).target
        for release in converter.b_releases:
            written = spellings.write(converter.b.changes, section, release)
            yield from _strangers(converter, B, written, f" of release {release}")


def _strangers(converter: Converter, side: Side, config: Config, which: str) -> Iterator[str]:
    form = converter.format(side)
    for part, knows in form.parts.items():
        if not knows(get(config, part)):
            yield f"{form.name}: {part or 'a config'}{which} is not recognised as its own"
    for other, where in registry.formats():
        rival = other.format(where)
        if (where, rival.parts.keys()) != (side, form.parts.keys()) or rival.by_name or form.by_name:
            continue
        if other.model != converter.model and all(knows(get(config, part)) for part, knows in rival.parts.items()):
            yield f"{form.name}: a config{which} is also recognised as that of {other.model}"


def _canonical(converter: Converter, config: Config) -> Config:
    """A config of side a in canonical form."""
    try:
        return converter.configs.a.read(config)
    except ValueError as error:
        raise AssertionError(f"{converter.model}: a config of {converter.a.name}: {error}") from error


def _differing(expected: Config, actual: Config) -> list[str]:
    """The fields in which two sections differ."""
    return [name for name in {**expected, **actual} if get(expected, name) != get(actual, name)]
