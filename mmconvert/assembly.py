"""Every tensor of the target, and where it comes from: what the plan is made of and what `verify` compares with.

Here a source's headers meet what its config demands. Whatever they disagree about is refused, by name, before a byte
is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod, sqrt

from mmconvert import mapping
from mmconvert.casts import CASTABLE, Cast, Overflow
from mmconvert.configs import get
from mmconvert.converter import Substitute
from mmconvert.dtypes import BY_NAME, DType
from mmconvert.errors import InputRefused, UsageError
from mmconvert.invent import Uniform
from mmconvert.layouts import Checkpoint
from mmconvert.mapping import Leg, Origin
from mmconvert.options import Options
from mmconvert.plan import PlannedTensor, Remark, Twins
from mmconvert.registry import Hop
from mmconvert.releases import Release
from mmconvert.sources import Gather, Source, TensorRef
from mmconvert.spec import Expansion, Pair

# Names that quantised checkpoints give to what belongs to a weight; rows cannot be moved without moving these too.
QUANTISED = (
    "weight_scale_inv",
    "weight_scale",
    "qweight",
    "qzeros",
    "scales",
    "absmax",
    "quant_map",
    "quant_state",
    "g_idx",
)


@dataclass(frozen=True)
class Assembly:
    """The tensors of a target in order, before they are shared out among files."""

    legs: tuple[Leg, ...]
    tensors: tuple[PlannedTensor, ...]
    twins: tuple[Twins, ...]
    dropped: tuple[Remark, ...]
    invented: tuple[Remark, ...]
    parts: Mapping[str, str] = field(default_factory=dict)
    overflow: Overflow = field(default_factory=Overflow)


def assemble(checkpoint: Checkpoint, hops: Sequence[Hop], release: Release | None, options: Options) -> Assembly:
    """Work out every tensor of the target.

    Raises InputRefused where the source's tensors are not what its config demands, naming the key, what was expected
    and what was found; UsageError for options that do not fit.
    """
    names = frozenset(checkpoint.tensors)
    legs = mapping.translate(hops, checkpoint.config, release, names, checkpoint.config_from)
    expansion, converter = legs[0].expansion, hops[0].converter
    dropped: list[Remark] = []
    tensors = dict(checkpoint.tensors)
    twins: list[Twins] = []
    if hops[0].side == "a":
        for substitute in converter.substitutes:
            tensors = _substitute(substitute, tensors, checkpoint, options.take, dropped, twins)
    tensors = spelled(tensors, legs[0], hops[0].source.aliases)
    expected = legs[0].expected()
    twins += _twins(tensors, legs[0])
    tensors = _known(tensors, expected, legs[0], dropped, checkpoint)
    missing = _missing(tensors, expected, options, checkpoint)
    _check_shapes(tensors, expected, checkpoint)
    _check_options(options, expansion)
    overflow = Overflow()
    planned, invented, parts = [], [], {}
    default_dtype = prevailing(tensors.values())
    for target, origin in mapping.origins(legs).items():
        pair = origin.pair
        parts[target] = pair.part
        if origin.key in missing:
            planned.append(_invented(target, pair, origin, options, default_dtype))
            invented.append(Remark(target, f"missing from the source; --init {pair.init} {planned[-1].rule}"))
        else:
            planned.append(_planned(target, tensors[origin.key], origin, options, overflow))
    set_aside = [Remark(key, why) for key, why in checkpoint.set_aside.items()]
    return Assembly(legs, tuple(planned), tuple(twins), (*dropped, *set_aside), tuple(invented), parts, overflow)


# --- what the source holds, against what its config demands ---------------------------------------------------------


def spelled(tensors: Mapping[str, TensorRef], leg: Leg, aliases: Sequence[tuple[str, str]]) -> dict[str, TensorRef]:
    """The tensors under the names of the tables, whichever of the format's prefixes they were saved with."""
    known = leg.expected().keys() | {twin.key for twin in leg.twins_read()}
    renamed: dict[str, TensorRef] = {}
    for key, ref in tensors.items():
        name = key
        if key not in known:
            for found, meant in aliases:
                other = meant + key.removeprefix(found)
                if key.startswith(found) and (other in known or _is_left_behind(leg, other)):
                    name = other
                    break
        if name in renamed:
            raise InputRefused(f"{_file(ref)}: {key} and {renamed[name].key} are the same tensor under two spellings")
        renamed[name] = ref
    return renamed


def _file(ref: TensorRef) -> str:
    """The file to name to a user."""
    return str(getattr(ref.source, "path", ref.file))


def _is_left_behind(leg: Leg, key: str) -> bool:
    return leg.expansion.dropped(leg.hop.side, key) is not None


def _twins(tensors: Mapping[str, TensorRef], leg: Leg) -> list[Twins]:
    """Pairs of the source that the target has one place for; a missing second copy is nothing to compare."""
    found = [
        (twin, tensors[twin.of], tensors[twin.key])
        for twin in leg.twins_read()
        if {twin.key, twin.of} <= tensors.keys()
    ]
    return [_same_shape(Twins(kept, other, twin.why)) for twin, kept, other in found]


def _same_shape(twins: Twins) -> Twins:
    """The pair, unless its headers already show that it is none."""
    kept, other = twins.kept, twins.twin
    if (kept.shape, kept.dtype) != (other.shape, other.dtype):
        raise InputRefused(
            f"{_file(other)}: {other.key} must equal {kept.key} ({twins.why}), but differs in shape or type"
        )
    return twins


def _known(
    tensors: Mapping[str, TensorRef],
    expected: Mapping[str, Pair],
    leg: Leg,
    dropped: list[Remark],
    checkpoint: Checkpoint,
) -> dict[str, TensorRef]:
    """The tensors that the tables name. What they leave behind is listed; anything else is refused."""
    twin_of = {twin.key: twin.of for twin in leg.twins_read()}
    known = {}
    for key, ref in tensors.items():
        why = leg.expansion.dropped(leg.hop.side, key)
        if key in expected:
            known[key] = ref
        elif key in twin_of:
            # An old file may hold only one of the two names: then the other stands for it.
            if twin_of[key] not in tensors and twin_of[key] in expected:
                known[twin_of[key]] = ref
            dropped.append(Remark(ref.key, f"the same tensor as {twin_of[key]}"))
        elif why is not None:
            dropped.append(Remark(ref.key, why))
        elif key.endswith(QUANTISED):
            raise InputRefused(
                f"{_file(ref)}: {ref.key}: the checkpoint is quantised; convert the weights it was made from"
            )
        else:
            raise InputRefused(
                f"{_file(ref)}: {ref.key}: no tensor of this name belongs to a {checkpoint.node.model} of this config"
            )
    return known


def _missing(
    tensors: Mapping[str, TensorRef], expected: Mapping[str, Pair], options: Options, checkpoint: Checkpoint
) -> set[str]:
    """Tensors that the source lacks and the user asked to invent; any other missing one is refused."""
    missing = {key: pair for key, pair in expected.items() if key not in tensors}
    for key, pair in missing.items():
        if pair.init in options.init:
            kept = [other for other, each in expected.items() if each.init == pair.init and other in tensors]
            if kept:
                raise InputRefused(
                    f"{checkpoint.path}: {key} is missing, but {kept[0]} is there: --init {pair.init} makes the whole, "
                    "never a part"
                )
            continue
        shape = " x ".join(map(str, pair.shape))
        others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        hint = f"; --init {pair.init}=uniform:SEED makes it" if pair.init else ""
        raise InputRefused(f"{checkpoint.path}: {key} is missing (expected {shape}{others}){hint}")
    return set(missing)


def _check_shapes(tensors: Mapping[str, TensorRef], expected: Mapping[str, Pair], checkpoint: Checkpoint) -> None:
    for key, ref in tensors.items():
        if ref.shape != expected[key].shape:
            wanted, found = (" x ".join(map(str, shape)) or "a scalar" for shape in (expected[key].shape, ref.shape))
            raise InputRefused(f"{_file(ref)}: {ref.key} is {found}, but the config demands {wanted}")


def _check_options(options: Options, expansion: Expansion) -> None:
    parts = {pair.part for pair in expansion.pairs}
    for part in options.dtype:
        if part and part not in parts:
            raise UsageError(f"--dtype {part}=…: this model's parts are {', '.join(sorted(parts))}")
    names = {pair.init for pair in expansion.pairs if pair.init}
    for name in options.init:
        if name not in names:
            raise UsageError(
                f"--init {name}=…: what can be made in this model is {', '.join(sorted(names)) or 'nothing'}"
            )


def _substitute(
    rule: Substitute,
    tensors: dict[str, TensorRef],
    checkpoint: Checkpoint,
    choice: str | None,
    dropped: list[Remark],
    twins: list[Twins],
) -> dict[str, TensorRef]:
    """Settle which of two towers is meant: the one in its own folder or the one saved inside the text checkpoint."""
    inside = {key: ref for key, ref in tensors.items() if key.startswith(rule.prefix)}
    flagged = get(checkpoint.config, rule.flag) is True
    if not inside:
        if flagged or choice == rule.choices[0]:
            said = f"{rule.flag} is true" if flagged else f"{rule.option} is {choice}"
            raise InputRefused(f"{checkpoint.path}: {said}, but the checkpoint holds no {rule.prefix}*")
        return tensors
    rest = {key: ref for key, ref in tensors.items() if key not in inside}
    use_inside = choice == rule.choices[0] or (choice is None and flagged)
    if use_inside:
        moved = {rule.instead_of + key.removeprefix(rule.prefix): ref for key, ref in inside.items()}
        why = f"{rule.prefix}* is used in its place, as {rule.option if choice else rule.flag} says"
        dropped += [Remark(key, why) for key in rest if key.startswith(rule.instead_of)]
        return {key: ref for key, ref in rest.items() if not key.startswith(rule.instead_of)} | moved
    for key, ref in inside.items():
        other = rest.get(rule.instead_of + key.removeprefix(rule.prefix))
        if choice is None and other is not None:
            options = " or ".join(f"{rule.option} {each}" for each in rule.choices)
            why = f"{rule.flag} is not set, so both must agree; {options} says which to take"
            twins.append(_same_shape(Twins(other, ref, why)))
        dropped.append(Remark(key, f"the tower of {rule.instead_of} is used"))
    return rest


# --- the target's tensors -------------------------------------------------------------------------------------------


def _planned(target: str, ref: TensorRef, origin: Origin, options: Options, overflow: Overflow) -> PlannedTensor:
    source: Source = ref.source
    rule = origin.rule
    if origin.index is not None:
        source = Gather(source, origin.index, ref.nbytes // ref.shape[0])
    dtype = _wanted(origin.pair, options, ref.dtype)
    if dtype != ref.dtype:
        if ref.dtype not in CASTABLE:
            raise InputRefused(f"{_file(ref)}: {ref.key} is {ref.dtype}, which cannot be cast to {dtype}")
        source = Cast(source, ref.dtype, dtype, target, overflow)
        rule = f"{rule}; cast from {ref.dtype}"
    return PlannedTensor(target, dtype, ref.shape, source, ref.key, rule)


def _wanted(pair: Pair, options: Options, dtype: DType) -> DType:
    wanted = options.dtype.get(pair.part, options.dtype.get(""))
    return wanted if wanted is not None and dtype.is_float else dtype


def _invented(target: str, pair: Pair, origin: Origin, options: Options, dtype: DType) -> PlannedTensor:
    """A tensor drawn uniformly from ±sqrt(1 / fan_in), weights and biases alike, as torch's Linear starts."""
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
