"""A random checkpoint of the shape that a config demands: planned like a conversion, from a source that is drawn.

Every tensor is drawn as side a has it and put into side b's order by the tables, under a seed of its own. So one seed
gives one model in every format, and a conversion leads from each to the others bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod, sqrt
from pathlib import Path

from mmconvert import registry, targets
from mmconvert.assembly import Assembly
from mmconvert.casts import Cast, Overflow
from mmconvert.completeness import Holdings
from mmconvert.demands import Demands
from mmconvert.dtypes import BY_NAME, DType
from mmconvert.errors import InputRefused
from mmconvert.filling import arranged
from mmconvert.holes import Zeros
from mmconvert.invent import Uniform
from mmconvert.mapping import Leg
from mmconvert.options import DEFAULTS, Options
from mmconvert.plans import Plan, PlannedTensor
from mmconvert.rows import is_permutation
from mmconvert.sources import Source, TensorRef
from mmconvert.spec import B, Pair, expand
from mmconvert.staging import check_target

FLOAT32 = BY_NAME["float32"]


@dataclass(frozen=True)
class PlusOne:
    """The float32 values of `inner`, each one larger."""

    inner: Source

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        import numpy as np

        self.inner.read_into(start, buffers)
        for buffer in buffers:
            np.frombuffer(buffer, "<f4")[:] += 1


def plan_synthesis(
    demands: Demands, out: Path, seed: int | None, options: Options = DEFAULTS, overwrite: bool = False
) -> Plan:
    """The plan to write at `out` what `demands` asks for; without a `seed`, all its tensors are zeros in holes.

    A tensor has the element type that `options` ask for, or else the config's, or else float32. Raises OutputRefused
    for a place that cannot be written to, InputRefused where the config makes no sense.
    """
    checkpoint, hops = demands.checkpoint, [leg.hop for leg in demands.legs]
    check_target(out, overwrite, [checkpoint.path])
    tensors = tuple(_planned(demands, seed, options))
    assembly = Assembly(demands.legs, Holdings({}, frozenset(), (), ()), tensors, (), Overflow())
    target = targets.lay_out(targets.Job(checkpoint, hops[-1], demands.release, out, options, assembly))
    configs = demands.legs[0].configs
    release = None if demands.release is None else str(demands.release)
    facts = {
        "source": {"model": demands.model, "format": checkpoint.node.format, "release": None},
        "target": {"model": demands.model, "format": demands.format, "release": release},
        "path": [str(hop) for hop in hops],
        "options": options.recorded(),
        "drawn": {"sparse": True} if seed is None else {"seed": seed},
        "config": {
            "carried": list(configs.carried),
            "dropped": [{"field": each.subject, "why": each.why} for each in configs.dropped],
        },
    }
    # What the target says of missing files is left out: nobody expects a tokenizer of random weights.
    return Plan(
        out=out,
        outputs=target.outputs,
        documents=target.documents,
        carried=target.carried,
        warnings=tuple(dict.fromkeys((*checkpoint.notes, *configs.warnings))),
        facts=facts,
        sources=(checkpoint.path,),
    )


def _planned(demands: Demands, seed: int | None, options: Options) -> Iterator[PlannedTensor]:
    leg = _with_both_sides(demands.legs[-1], demands.checkpoint.config_from)
    for key, origin in leg.origins().items():
        pair = origin.pair
        dtype = options.dtype.get(pair.part, options.dtype.get("")) or demands.dtype(pair) or FLOAT32
        source, rule = _drawn(pair, seed, dtype)
        # A drawn tensor has side b's rows in the order of side a: towards b they move, towards a some may be made.
        index = origin.index if (leg.hop.other == B) == (pair.a_rows is None) else None
        if index is not None and seed is not None:
            source = arranged(TensorRef(key, dtype, pair.shape, source), index)
            rule = f"{rule}; {origin.rule}"
        yield PlannedTensor(key, dtype, origin.shape, source, None, rule)


def _with_both_sides(leg: Leg, where: str) -> Leg:
    """The leg with the tables of a converter where it leads from one release to another: they know side a as well."""
    if leg.hop.source is not leg.hop.target:
        return leg
    there = leg.hop.target
    tables = next(each.tables for each in registry.converters() if each.b is there)
    try:
        expansion = expand(tables, leg.config_b)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputRefused(f"{where}: sizes that tensors follow from are absent, null or zero ({error})") from error
    for pair in expansion.pairs:
        if pair.index is not None and not is_permutation(pair.index):
            why = f"{pair.rule!r} is no order of the {pair.shape[0]} rows of {pair.b}"
            raise InputRefused(f"{where}: its heads make no sense: {why}")
    return replace(leg, expansion=expansion)


def _drawn(pair: Pair, seed: int | None, dtype: DType) -> tuple[Source, str]:
    """One tensor in the order of side a's rows, and what it is in words."""
    if seed is None:
        return Zeros(), "zeros"
    # A tensor of one dimension that no matrix goes with has its own length for a fan-in.
    bound = sqrt(1 / (pair.fan_in if pair.fan_in > 1 else pair.shape[0]))
    count = prod(pair.shape)
    if not _is_scale(pair):
        # Seeded by side b's name, like a tensor that is missing from a source and made by --init.
        return Uniform(seed, pair.b, bound, dtype, count), f"uniform ±{bound:.6g}, seed {seed}"
    source: Source = PlusOne(Uniform(seed, pair.b, bound, FLOAT32, count))
    if dtype != FLOAT32:
        source = Cast(source, FLOAT32, dtype, pair.b, Overflow())
    return source, f"uniform 1 ± {bound:.6g}, seed {seed}"


def _is_scale(pair: Pair) -> bool:
    """Whether a tensor is what a norm multiplies by: the one kind of weight that has one dimension."""
    return len(pair.shape) == 1 and pair.b.endswith(".weight")
