"""Row gathers: the only thing besides copying that a tensor of these models ever needs.

A rule is one function giving, for each row of the b side, the row of the a side that it comes from. The way back is the
inverse of that list, and a path of several converters is the lists put through each other; neither is written by hand.
A side may have rows that the other has not, as a vocabulary of more tokens has: they are cut off on the one way, and
`FILLED` on the other.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

Index = Sequence[int]
# In place of a source's row: there is none, and the row is made of the others.
FILLED = -1


@dataclass(frozen=True)
class RowRule:
    """How the rows of one tensor are ordered on the b side; `words` explains it to people and to the manifest.

    `sizes` names the table sizes that the rule depends on. `index(rows, *values)` gives the list for a tensor of so
    many rows.
    """

    words: str
    sizes: tuple[str, ...]
    index: Callable[..., Index]

    def for_rows(self, rows: int, sizes: Mapping[str, int]) -> tuple[Index, str]:
        """The list for one tensor, and the rule in words with its sizes filled in."""
        values = [sizes[name] for name in self.sizes]
        return self.index(rows, *values), self.words.format(**dict(zip(self.sizes, values, strict=True)))


def rotary(heads: str, rotary_dim: str) -> RowRule:
    """The rotary interleave: Hugging Face rotates halves of a head, CS rotates neighbouring pairs.

    Within each head the first `rotary_dim` rows go from [x0 .. x(r/2-1), y0 .. y(r/2-1)] to [x0, y0, x1, y1, ..]; rows
    past them stay. Works on weights [heads * head_dim, in] and on biases [heads * head_dim].
    """
    return RowRule(f"rotary rows interleaved (heads: {{{heads}}})", (heads, rotary_dim), rotary_index)


@lru_cache(maxsize=64)
def rotary_index(rows: int, heads: int, rotary_dim: int) -> Index:
    head_dim = rows // heads
    head = [half * (rotary_dim // 2) + pair for pair in range(rotary_dim // 2) for half in (0, 1)]
    head += range(rotary_dim, head_dim)
    return array("q", [first + row for first in range(0, rows, head_dim) for row in head])


@lru_cache(maxsize=64)
def roll_index(rows: int) -> Index:
    return array("q", [*range(1, rows), 0])


# The CLS roll: Hugging Face keeps the class token's position in row 0, CS in the last row.
roll_cls = RowRule("class-token row moved from first to last", (), roll_index)


def inverse(index: Index, rows: int | None = None) -> Index:
    """The list that undoes `index`; `rows` are those of its source, where it leaves some of them out."""
    back = array("q", [FILLED]) * (len(index) if rows is None else rows)
    for target, source in enumerate(index):
        back[source] = target
    return back


def compose(first: Index | None, second: Index | None, rows: int) -> Index | None:
    """Rows through `first` and then through `second`; None where each of the source's `rows` rows stays where it is."""
    if first is None or second is None:
        moved = first if second is None else second
    else:
        moved = array("q", [FILLED if row == FILLED else first[row] for row in second])
    return None if moved is None or (len(moved) == rows and is_identity(moved)) else moved


def own_rows(index: Index) -> int:
    """How many rows of a list are a source's; those that are `FILLED` follow."""
    if not index or index[-1] != FILLED:
        return len(index)
    return next(at for at, row in enumerate(index) if row == FILLED)


def is_identity(index: Index) -> bool:
    return all(row == at for at, row in enumerate(index))


def is_permutation(index: Index) -> bool:
    return sorted(index) == list(range(len(index)))
