"""Every tensor of the target, and where it comes from: what the plan is made of and what `verify` compares with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod, sqrt

from mmconvert import mapping
from mmconvert.casts import CASTABLE, Cast, Overflow
from mmconvert.completeness import Holdings, take_stock
from mmconvert.dtypes import BY_NAME, DType
from mmconvert.errors import InputRefused
from mmconvert.filling import arranged
from mmconvert.invent import Uniform
from mmconvert.layouts import Checkpoint
from mmconvert.mapping import Leg, Origin
from mmconvert.options import Options
from mmconvert.plans import Journey, PlannedTensor
from mmconvert.registry import Hop
from mmconvert.remark import Remark
from mmconvert.rows import own_rows
from mmconvert.sources import TensorRef
from mmconvert.spec import Pair


@dataclass(frozen=True)
class Assembly:
    """The tensors of a target in order, before they are shared out among files; `overflow` counts while they move.

    `invented` are tensors and rows that the source has not, `cut` are rows of it that the target has no place for.
    """

    legs: tuple[Leg, ...]
    holdings: Holdings
    tensors: tuple[PlannedTensor, ...]
    invented: tuple[Remark, ...]
    overflow: Overflow
    cut: tuple[Remark, ...] = ()


def assemble(checkpoint: Checkpoint, hops: Sequence[Hop], options: Options) -> Assembly:
    """Work out every tensor of the target.

    Raises InputRefused where the source is not what its config demands.
    """
    names = frozenset(checkpoint.tensors)
    legs = mapping.translate(hops, checkpoint.config, names, checkpoint.config_from, options.only)
    if checkpoint.bare:
        if legs[0].hop.source is not legs[-1].hop.target:
            raise InputRefused(f"{checkpoint.path}: a params file alone holds no weights; only cs-to-cs converts it")
        return Assembly(legs, Holdings({}, frozenset(), (), ()), (), (), Overflow())
    holdings = take_stock(checkpoint, legs[0], options)
    usual = prevailing(holdings.tensors.values())
    overflow = Overflow()
    planned: list[PlannedTensor] = []
    invented: list[Remark] = []
    cut: list[Remark] = []
    for target, origin in mapping.origins(legs).items():
        if origin.key in holdings.missing:
            planned.append(_invented(target, origin, options, usual))
            invented.append(Remark(target, f"missing from the source; --init {origin.pair.init} {planned[-1].rule}"))
        else:
            ref = holdings.tensors[origin.key]
            planned.append(_planned(target, ref, origin, options, overflow))
            own = _own_rows(origin)
            if own < len(origin.index or ()):
                why = f"rows {own} to {len(origin.index or ()) - 1} are new: each is the mean of the others"
                invented.append(Remark(target, why))
            if own < origin.rows:
                cut.append(Remark(ref.key, f"rows {own} to {origin.rows - 1}: {target} has no more than {own}"))
    return Assembly(legs, holdings, tuple(planned), tuple(invented), overflow, tuple(cut))


def _own_rows(origin: Origin) -> int:
    """How many rows of the source the target has."""
    return origin.rows if origin.index is None else own_rows(origin.index)


def _planned(target: str, ref: TensorRef, origin: Origin, options: Options, overflow: Overflow) -> PlannedTensor:
    source, rule = arranged(ref, origin.index), origin.rule
    dtype = _wanted(origin.pair, options, ref.dtype)
    if dtype != ref.dtype:
        if ref.dtype not in CASTABLE:
            raise InputRefused(f"{ref.key} is {ref.dtype}, which cannot be cast to {dtype}")
        source = Cast(source, ref.dtype, dtype, target, overflow)
        rule = f"{rule}; cast from {ref.dtype}"
    return PlannedTensor(target, dtype, origin.shape, source, ref.key, rule, Journey(ref, origin.index, origin.steps))


def _wanted(pair: Pair, options: Options, dtype: DType) -> DType:
    wanted = options.dtype.get(pair.part, options.dtype.get(""))
    return dtype if wanted is None else wanted


def _invented(target: str, origin: Origin, options: Options, dtype: DType) -> PlannedTensor:
    """A tensor drawn uniformly from ±sqrt(1 / fan_in), weights and biases alike, as torch's Linear starts."""
    pair = origin.pair
    seed = options.init[pair.init or ""]
    bound = sqrt(1 / pair.fan_in)
    dtype = _wanted(pair, options, dtype)
    # Seeded by side b's name, so that both directions invent the same.
    drawn = TensorRef(target, dtype, pair.shape, Uniform(seed, pair.b, bound, dtype, prod(pair.shape)))
    source, rule = arranged(drawn, origin.index), f"uniform ±{bound:.6g}, seed {seed}"
    if _own_rows(origin) < len(origin.index or ()):
        rule = f"{rule}; {origin.rule}"
    return PlannedTensor(target, dtype, origin.shape, source, None, rule)


def prevailing(tensors: Iterable[TensorRef | PlannedTensor]) -> DType:
    """The floating element type that most bytes have."""
    count: Counter[DType] = Counter()
    for ref in tensors:
        if ref.dtype.is_float:
            count[ref.dtype] += ref.nbytes
    return count.most_common(1)[0][0] if count else BY_NAME["float32"]
