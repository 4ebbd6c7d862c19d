"""A's weights as B's element types keep them, tensor by tensor: a cast is no difference.

What is rounded is the tensors of the checkpoint, as they are read, so that whatever computes with them need not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mmconvert.casts import CASTABLE, Cast, Overflow
from mmconvert.dtypes import DType
from mmconvert.sources import TensorRef


def rounded(
    tensors: Mapping[str, TensorRef], made: Mapping[str, DType], tally: Overflow
) -> tuple[dict[str, TensorRef], tuple[str, ...]]:
    """The tensors of A with the values that they have in B, in their own element types; and what there is to say of it.

    `made` gives the element type that each of A's tensors has become in B. What becomes infinite adds to `tally` when
    it is read.
    """
    found = dict(tensors)
    narrowed: set[str] = set()
    is_wider = False
    for key, ref in tensors.items():
        dtype = made.get(key, ref.dtype)
        if dtype == ref.dtype or not {dtype, ref.dtype} <= CASTABLE:
            continue
        if _holds(dtype, ref.dtype):
            is_wider = True
            continue
        narrow = Cast(ref.source, ref.dtype, dtype, key, tally)
        found[key] = replace(ref, source=Cast(narrow, dtype, ref.dtype, key, Overflow()))
        narrowed.add(dtype.name)
    notes = [f"A's weights are rounded to {each} first, where B's are" for each in sorted(narrowed)]
    if is_wider:
        notes.append("B's element type is wider than A's: if A was made from B, what that cast lost is a difference")
    return found, tuple(notes)


def _holds(wide: DType, narrow: DType) -> bool:
    """Whether one type has every value of another: float16 and bfloat16 have not each other's."""
    return wide == narrow or wide.itemsize > narrow.itemsize
