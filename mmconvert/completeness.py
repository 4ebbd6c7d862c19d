"""What a source holds, against what its config demands.

Whatever the two disagree about is refused here, by name, before a byte is read: a tensor that is missing, of another
shape or type, under two names, or of no name that the tables know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmconvert.converter import Substitute
from mmconvert.errors import InputRefused
from mmconvert.layouts import Checkpoint
from mmconvert.mapping import Leg
from mmconvert.options import Options
from mmconvert.paths import get
from mmconvert.plans import Twins
from mmconvert.remark import Remark
from mmconvert.sources import TensorRef
from mmconvert.spec import A

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
class Holdings:
    """The tensors of a source under the names of its tables, and what else was found.

    `missing` are names that the user asked to invent; `twins` must prove equal when the bytes are read.
    """

    tensors: Mapping[str, TensorRef]
    missing: frozenset[str]
    twins: tuple[Twins, ...]
    dropped: tuple[Remark, ...]


def take_stock(checkpoint: Checkpoint, leg: Leg, options: Options) -> Holdings:
    """Match the tensors of a checkpoint with those that its config demands.

    Raises InputRefused, naming file and key, what was expected and what was found.
    """
    dropped: list[Remark] = []
    twins: list[Twins] = []
    tensors = named(checkpoint, leg, options.take, dropped, twins)
    twins += second_copies(tensors, leg)
    tensors = _known(tensors, leg, dropped, checkpoint)
    missing = _missing(tensors, leg, options, checkpoint)
    _check_headers(tensors, leg)
    dropped += [Remark(key, why) for key, why in checkpoint.set_aside.items()]
    return Holdings(tensors, frozenset(missing), tuple(twins), tuple(dropped))


def named(
    checkpoint: Checkpoint, leg: Leg, choice: str | None, dropped: list[Remark], twins: list[Twins]
) -> dict[str, TensorRef]:
    """The tensors under the names of the tables, with one that is there twice settled.

    Adds to `dropped` and `twins`. Raises InputRefused for a tensor under two names, or where none can be settled on.
    """
    tensors = checkpoint.tensors
    if leg.hop.side == A:
        for substitute in leg.hop.converter.substitutes:
            if any(key.startswith(substitute.instead_of) for key in leg.expected()):
                tensors = _substitute(substitute, tensors, checkpoint, choice, dropped, twins)
            else:
                tensors = _without(substitute, tensors, dropped)
    return _spelled(tensors, leg, leg.hop.source.aliases)


def _spelled(tensors: Mapping[str, TensorRef], leg: Leg, aliases: Sequence[tuple[str, str]]) -> dict[str, TensorRef]:
    """The tensors by the prefixes of the tables, whichever of the format's they were saved with."""
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
            raise InputRefused(f"{ref.where}: {key} and {renamed[name].key} are the same tensor under two spellings")
        renamed[name] = ref
    return renamed


def _is_left_behind(leg: Leg, key: str) -> bool:
    return leg.expansion.dropped(leg.hop.side, key) is not None


def second_copies(tensors: Mapping[str, TensorRef], leg: Leg) -> list[Twins]:
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
            f"{other.where}: {other.key} must equal {kept.key} ({twins.why}), but differs in shape or type"
        )
    return twins


def _known(
    tensors: Mapping[str, TensorRef], leg: Leg, dropped: list[Remark], checkpoint: Checkpoint
) -> dict[str, TensorRef]:
    """The tensors that the tables name. What they leave behind is listed; anything else is refused."""
    expected = leg.expected()
    twin_of = {twin.key: twin.of for twin in leg.twins_read()}
    # Between releases of one format a second copy stays one.
    stays = leg.hop.source is leg.hop.target
    known = {}
    for key, ref in tensors.items():
        why = leg.expansion.dropped(leg.hop.side, key)
        if key in expected:
            known[key] = ref
        elif key in twin_of:
            # An old file may hold only one of the two names: then the other stands for it.
            if twin_of[key] not in tensors and twin_of[key] in expected:
                known[twin_of[key]] = ref
            if not stays:
                dropped.append(Remark(ref.key, f"the same tensor as {twin_of[key]}"))
        elif why is not None:
            dropped.append(Remark(ref.key, why))
        elif key.endswith(QUANTISED):
            raise InputRefused(
                f"{ref.where}: {ref.key}: the checkpoint is quantised; convert the weights it was made from"
            )
        else:
            raise InputRefused(
                f"{ref.where}: {ref.key}: no tensor of this name belongs to a {checkpoint.node.model} of this config"
            )
    return known


def _missing(tensors: Mapping[str, TensorRef], leg: Leg, options: Options, checkpoint: Checkpoint) -> set[str]:
    """Tensors that the source lacks and the user asked to invent; any other missing one is refused."""
    expected = leg.expected()
    missing = {key: pair for key, pair in expected.items() if key not in tensors}
    for key, pair in missing.items():
        kept = [other for other, each in expected.items() if each.init == pair.init and other in tensors]
        if pair.init in options.init:
            if kept:
                raise InputRefused(
                    f"{checkpoint.path}: {key} is missing, but {kept[0]} is there: --init {pair.init} makes the whole, "
                    "never a part"
                )
            continue
        shape = " x ".join(map(str, pair.shape_on(leg.hop.side)))
        others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        hint = f"; --init {pair.init}=uniform:SEED makes it" if pair.init and not kept else ""
        raise InputRefused(f"{checkpoint.path}: {key} is missing (expected {shape}{others}){hint}")
    return set(missing)


def _check_headers(tensors: Mapping[str, TensorRef], leg: Leg) -> None:
    expected = leg.expected()
    for key, ref in tensors.items():
        demanded = expected[key].shape_on(leg.hop.side)
        if ref.shape != demanded:
            wanted, found = (" x ".join(map(str, shape)) or "a scalar" for shape in (demanded, ref.shape))
            raise InputRefused(f"{ref.where}: {ref.key} is {found}, but the config demands {wanted}")
        if not ref.dtype.is_float:
            raise InputRefused(f"{ref.where}: {ref.key} is {ref.dtype}; a weight must be a floating-point number")


def _without(rule: Substitute, tensors: Mapping[str, TensorRef], dropped: list[Remark]) -> Mapping[str, TensorRef]:
    """The tensors without those that stand in for a part that nobody asked for."""
    inside = [key for key in tensors if key.startswith(rule.prefix)]
    dropped += [Remark(key, "belongs to another part of the model") for key in inside]
    return {key: ref for key, ref in tensors.items() if key not in inside}


def _substitute(
    rule: Substitute,
    tensors: Mapping[str, TensorRef],
    checkpoint: Checkpoint,
    choice: str | None,
    dropped: list[Remark],
    twins: list[Twins],
) -> Mapping[str, TensorRef]:
    """Settle which of two towers is meant: the one in its own folder or the one saved inside the text checkpoint."""
    inside = {key: ref for key, ref in tensors.items() if key.startswith(rule.prefix)}
    flagged = get(checkpoint.config, rule.flag) is True
    if not inside:
        inner, beside = rule.choices
        if choice == inner or (flagged and choice is None):
            said = f"{rule.option} is {choice}" if choice else f"{rule.flag} is true"
            raise InputRefused(
                f"{checkpoint.path}: {said}, but the checkpoint holds no {rule.prefix}*; {rule.option} {beside} takes "
                "what lies beside it"
            )
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
