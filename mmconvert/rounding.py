"""Which precision A's weights are brought to first, where B was made in a narrower one: a cast is no difference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mmconvert.dtypes import DType
from mmconvert.options import Options

# Every part that a model may have; what a record says of all parts holds for those that it does not name.
PARTS = ("projector", "text", "vision")


def rounding_of(
    a: Iterable[DType], b: Iterable[DType], recorded: Options | None
) -> tuple[dict[str, DType], tuple[str, ...]]:
    """The element types that A's weights are rounded to, by part (`""`: all), and what there is to say of it.

    `a` and `b` are the element types of the two checkpoints, `recorded` are the options that B was made with, if it
    says so. Types that hold every value of A's are left out, for nothing would be rounded.
    """
    held, made = ({each for each in types if each.is_float} for types in (a, b))
    if held == made:
        return {}, ()
    if all(_holds(wide, narrow) for wide in made for narrow in held):
        return {}, ("B's element type is wider than A's: if A was made from B, what that cast lost is a difference",)
    said = _by_part(recorded.dtype) if recorded is not None else {}
    if not said and len(made) > 1:
        kinds = " and ".join(sorted(each.name for each in made))
        return {}, (f"B holds {kinds} and does not say of which part: A's weights are not rounded",)
    wanted = said or dict.fromkeys([""], made.pop())
    found = {part: dtype for part, dtype in wanted.items() if not all(_holds(dtype, each) for each in held)}
    notes = [
        f"A's weights{f' of the {part} part' if part else ''} are rounded to {dtype} first, as B's were"
        for part, dtype in found.items()
    ]
    return found, tuple(notes)


def _by_part(dtypes: Mapping[str, DType | None]) -> dict[str, DType]:
    """What is recorded, without parts that kept their own type."""
    everywhere = dtypes.get("")
    if None in dtypes.values():
        dtypes = {part: dtypes.get(part, everywhere) for part in PARTS}
    return {part: dtype for part, dtype in dtypes.items() if dtype is not None}


def _holds(wide: DType, narrow: DType) -> bool:
    """Whether one type has every value of another: float16 and bfloat16 have not each other's."""
    return wide == narrow or wide.itemsize > narrow.itemsize
