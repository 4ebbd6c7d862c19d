"""Which converters there are, and which of them lead from one format to another.

Converters are found through the entry-point group `mmconvert.converters`: each entry point is a callable that gives
any number of them. The built-in ones come the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from mmconvert.converter import Converter, Format
from mmconvert.errors import NoConversion
from mmconvert.releases import Release
from mmconvert.spec import A, B, Side

GROUP = "mmconvert.converters"


@dataclass(frozen=True)
class Node:
    """A format of a model; `release` matters to CS only, None means the newest."""

    model: str
    format: str
    release: Release | None = None

    def __str__(self) -> str:
        return f"{self.model} {self.format}" + (f"-{self.release}" if self.release else "")


@dataclass(frozen=True)
class Hop:
    """One converter on a path, entered from `side`."""

    converter: Converter
    side: Side

    @property
    def other(self) -> Side:
        return B if self.side == A else A

    @property
    def source(self) -> Format:
        return self.converter.format(self.side)

    @property
    def target(self) -> Format:
        return self.converter.format(self.other)

    def __str__(self) -> str:
        return f"{self.converter.model}: {self.source.name} -> {self.target.name}"


@cache
def converters() -> tuple[Converter, ...]:
    """All installed converters, ordered by model and format."""
    found = [each for point in metadata.entry_points(group=GROUP) for each in point.load()()]
    return tuple(sorted(found, key=lambda each: (each.model, each.a.name, each.b.name)))


@cache
def edges() -> tuple[Converter, ...]:
    """All converters, and what leads from one release of a format to another: that follows from their tables."""
    between: dict[tuple[str, str], Converter] = {}
    for each in converters():
        if len(each.b_releases) > 1:
            between.setdefault((each.model, each.b.name), each.between_releases())
    return tuple(sorted((*converters(), *between.values()), key=lambda each: each.model))


def formats() -> Iterator[tuple[Converter, Side]]:
    """Every side of every converter."""
    for each in converters():
        yield each, A
        yield each, B


def check_model(model: str) -> None:
    """Raise NoConversion for a model that no converter is for, naming those that there are."""
    known = sorted({each.model for each in converters()})
    if model not in known:
        raise NoConversion(f"no converter for model {model!r}; known: {', '.join(known)}")


def path(model: str, source: str, target: str) -> tuple[Hop, ...]:
    """The shortest way between two formats of a model.

    A format without releases goes to itself out and back by one converter, so that it too is checked against the
    tables. Raises NoConversion, saying what there is.
    """
    hops = [Hop(each, side) for each in edges() if each.model == model for side in each.entrances]
    frontier: list[tuple[Hop, ...]] = [(hop,) for hop in hops if hop.source.name == source]
    while frontier:
        for way in frontier:
            if way[-1].target.name == target:
                return way
        visited = {hop.source.name for way in frontier for hop in way}
        frontier = [
            (*way, hop)
            for way in frontier
            for hop in hops
            if hop.source.name == way[-1].target.name and (hop.target.name not in visited or hop.target.name == target)
        ]
    raise NoConversion(f"{model}: no way from {source} to {target}; it has {_known(hops)} (`mmconvert list` shows all)")


def _known(hops: Iterable[Hop]) -> str:
    return ", ".join(sorted({str(hop).partition(": ")[2] for hop in hops})) or "no converters"


def release_of(hops: tuple[Hop, ...], wanted: Release | None) -> Release | None:
    """The release to write: the one asked for, or the newest known; None where side a is written, which has none.

    Raises NoConversion for a release that the model does not have.
    """
    last = hops[-1]
    if last.other == A:
        if wanted is not None:
            raise NoConversion(f"{last.target.name} has no releases; leave --to-release out")
        return None
    known = last.converter.b_releases
    if wanted is None:
        return known[-1]
    if wanted not in known:
        raise NoConversion(f"{last.converter.model}: CS release {wanted} is not known; {known[0]} to {known[-1]} are")
    return wanted
