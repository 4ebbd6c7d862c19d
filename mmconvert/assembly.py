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
from mmconvert.invent import Uniform
from mmconvert.layouts import Checkpoint
from mmconvert.mapping import Leg, Origin
from mmconvert.options import Options
from mmconvert.plans import Journey, PlannedTensor
from mmconvert.registry import Hop
from mmconvert.remark import Remark
from mmconvert.sources import Gather, Source, TensorRef
from mmconvert.spec import Pair


@dataclass(frozen=True)
class Assembly:
    """The tensors of a target in order, before they are shared out among files; `overflow` counts while they move."""

    legs: tuple[Leg, ...]
    holdings: Holdings
    tensors: tuple[PlannedTensor, ...]
    invented: tuple[Remark, ...]
    overflow: Overflow


def assemble(checkpoint: Checkpoint, hops: Sequence[Hop], options: Options) -> Assembly:
    """Work out every tensor of the target.

    Raises InputRefused where the source is not what its config demands.
    """
    names = frozenset(checkpoint.tensors)
    legs = mapping.translate(hops, checkpoint.config, names, checkpoint.config_from)
    if checkpoint.bare:
        if legs[0].hop.source is not legs[-1].hop.target:
            raise InputRefused(f"{checkpoint.path}: a params file alone holds no weights; only cs-to-cs converts it")
        return Assembly(legs, Holdings({}, frozenset(), (), ()), (), (), Overflow())
    holdings = take_stock(checkpoint, legs[0], options)
    usual = prevailing(holdings.tensors.values())
    overflow = Overflow()
    planned, invented = [], []
    for target, origin in mapping.origins(legs).items():
        if origin.key in holdings.missing:
            planned.append(_invented(target, origin, options, usual))
            invented.append(Remark(target, f"missing from the source; --init {origin.pair.init} {planned[-1].rule}"))
        else:
            planned.append(_planned(target, holdings.tensors[origin.key], origin, options, overflow))
    return Assembly(legs, holdings, tuple(planned), tuple(invented), overflow)


def _planned(target: str, ref: TensorRef, origin: Origin, options: Options, overflow: Overflow) -> PlannedTensor:
    source: Source = ref.source
    rule = origin.rule
    if origin.index is not None:
        source = Gather(source, origin.index, ref.nbytes // ref.shape[0])
    dtype = _wanted(origin.pair, options, ref.dtype)
    if dtype != ref.dtype:
        if ref.dtype not in CASTABLE:
            raise InputRefused(f"{ref.key} is {ref.dtype}, which cannot be cast to {dtype}")
        source = Cast(source, ref.dtype, dtype, target, overflow)
        rule = f"{rule}; cast from {ref.dtype}"
    return PlannedTensor(target, dtype, ref.shape, source, ref.key, rule, Journey(ref, origin.index, origin.steps))


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
    source: Source = Uniform(seed, pair.b, bound, dtype, prod(pair.shape))
    if origin.index is not None:
        source = Gather(source, origin.index, prod(pair.shape[1:]) * dtype.itemsize)
    return PlannedTensor(target, dtype, pair.shape, source, None, f"uniform ±{bound:.6g}, seed {seed}")


def prevailing(tensors: Iterable[TensorRef | PlannedTensor]) -> DType:
    """The floating element type that most bytes have."""
    count: Counter[DType] = Counter()
    for ref in tensors:
        if ref.dtype.is_float:
            count[ref.dtype] += ref.nbytes
    return count.most_common(1)[0][0] if count else BY_NAME["float32"]
