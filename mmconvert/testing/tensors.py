"""What must be true of tensor tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from mmconvert.converter import Converter
from mmconvert.rows import is_permutation
from mmconvert.spec import A, B, Config, Expansion, Key, captures
from mmconvert.testing.check import check, expansion_of, listed, translated


@check
def captures_agree(converter: Converter, configs: Sequence[Config]) -> Iterator[str]:
    """Both sides of a row range over the same things: a layer cannot go missing between two names."""
    rows = [row for table in converter.tables for row in table.rows if isinstance(row, Key)]
    if not rows:
        yield "its tables have no tensor on both sides"
    for row in rows:
        a, b = captures(row.a), captures(row.b)
        if a != b:
            yield f"the row of {row.a} and {row.b} captures {listed(a)} on the one side and {listed(b)} on the other"


@check
def no_name_stands_for_two_tensors(converter: Converter, configs: Sequence[Config]) -> Iterator[str]:
    """On either side each name is of one row, belongs to a part of the format, and is not also left behind."""
    for expansion in _expansions(converter, configs):
        for side in (A, B):
            form = converter.format(side)
            twins = [twin.key for twin in expansion.twins if twin.side == side]
            for name, count in Counter([pair.name(side) for pair in expansion.pairs] + twins).items():
                if count > 1:
                    yield f"{form.name}: {count} rows give {name}"
                if "" not in form.parts and name.partition("/")[0] not in form.parts:
                    yield f"{form.name}: {name} is in none of the parts {listed(form.parts)}"
            for name in (*expansion.by_name[side], *twins):
                why = expansion.dropped(side, name)
                if why is not None:
                    yield f"{form.name}: {name} is expected, and left behind ({why})"


@check
def twins_repeat_what_is_there(converter: Converter, configs: Sequence[Config]) -> Iterator[str]:
    """A second copy is of a tensor that the same side holds."""
    for expansion in _expansions(converter, configs):
        for twin in expansion.twins:
            if twin.of not in expansion.by_name[twin.side]:
                yield f"{converter.format(twin.side).name}: {twin.key} repeats {twin.of}, which is not there"


@check
def rows_are_permuted(converter: Converter, configs: Sequence[Config]) -> Iterator[str]:
    """A row rule moves every row to a place of its own, so that its inverse brings each one back."""
    for expansion in _expansions(converter, configs):
        for pair in expansion.pairs:
            if pair.index is not None and not (len(pair.index) == pair.shape[0] and is_permutation(pair.index)):
                yield f"{pair.b}: {pair.rule}: not each of its {pair.shape[0]} rows is taken once"


def _expansions(converter: Converter, configs: Sequence[Config]) -> Iterator[Expansion]:
    for config in configs:
        yield expansion_of(converter, translated(converter, A, config))
