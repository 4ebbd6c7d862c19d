"""Does B compute what A computes? Both get the same random inputs, each in an architecture of its own.

How a checkpoint becomes a model is not known here. Packages that know it give forward providers, through the
entry-point group `mmconvert.forward`; the inputs and the comparison are the same for all of them. One model at a time
is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import metadata
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mmconvert import registry
from mmconvert.assembly import assemble
from mmconvert.casts import Overflow
from mmconvert.compare import dtypes_of, of_one_model, options_of
from mmconvert.dtypes import DType
from mmconvert.errors import InputRefused, NoConversion, UsageError, VerificationFailed
from mmconvert.inputs import Inputs, Sizes, disagreements, draw_inputs, together
from mmconvert.layouts import NO_HINTS, Checkpoint, Hints, recognise
from mmconvert.options import Options
from mmconvert.parity import LOGITS, TOLERANCE, Parity, agreement, only_one_side
from mmconvert.paths import put
from mmconvert.plans import Plan, PlannedTensor
from mmconvert.progress import Progress, Silent
from mmconvert.registry import Hop
from mmconvert.rounding import rounded
from mmconvert.spec import A

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "GROUP",
    "Computed",
    "Inputs",
    "Model",
    "Parity",
    "Provider",
    "Sizes",
    "check_forward",
    "compare_forward",
    "compute_source",
    "providers",
]

GROUP = "mmconvert.forward"


class Model(Protocol):
    """A checkpoint, ready to compute.

    `outputs` gives arrays by name, those of "text logits" [B, S, V], "image features" [N, P, E], "image embeds" [N, D],
    "projected image features" [N, P, H] and, of text with images, "logits" [B, S, V] that there are; others may follow.
    """

    sizes: Sizes

    def outputs(self, inputs: Inputs) -> Mapping[str, NDArray[np.float32]]: ...


# Gives None for a checkpoint of a format or model that it knows nothing of. The checkpoint's tensors are what is to be
# computed with: where one has no `path`, its values are not those of the file.
Provider = Callable[[Checkpoint], Model | None]


@dataclass(frozen=True)
class Computed:
    """What one checkpoint has computed, and from what; `overflow` counts what rounding made infinite."""

    checkpoint: Checkpoint
    overflow: Overflow
    seed: int
    sizes: Sizes
    inputs: Inputs
    outputs: Mapping[str, NDArray[np.float32]]
    notes: tuple[str, ...]


def providers() -> dict[str, Callable[[], Provider]]:
    """What loads each installed provider, by its name."""
    return {point.name: point.load for point in metadata.entry_points(group=GROUP)}


def compare_forward(
    a: Path,
    b: Path,
    hints_a: Hints = NO_HINTS,
    hints_b: Hints = NO_HINTS,
    tolerance: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Parity:
    """Compare what two checkpoints of one model compute from the same random inputs.

    An output may be `tolerance` apart (without: `TOLERANCE`), in units of A's largest absolute value, or of 1 if that
    is larger. A weight that B holds in a narrower element type is rounded to that in A first.

    Raises NoConversion for a side that no provider computes, or sides that have no output in common; UsageError where
    what a provider needs is not installed, for a tolerance that is none, or for a hint that has nothing to act on; and
    InputRefused for a side that is broken in itself.
    """
    if tolerance is not None and not (isfinite(tolerance) and tolerance > 0):
        raise UsageError(f"tolerance {tolerance}: must be a finite number above 0, such as {TOLERANCE}")
    if seed < 0:
        raise UsageError(f"seed {seed}: must not be negative")
    left, right = of_one_model(a, b, hints_a, hints_b)
    hops = registry.path(left.node.model, left.node.format, right.node.format)
    options = options_of(b, hops)
    source = _as_converted(left, hops, options)
    planned = () if left.bare else assemble(source, hops, options).tensors
    source, notes, overflow = _as_cast(source, planned, dtypes_of(right, hops))
    watcher = progress or Silent()
    work = [sum(ref.nbytes for ref in side.tensors.values()) for side in (left, right)]
    watcher.start(sum(work))
    try:
        first = _compute(source, overflow, seed, notes)
        watcher.advance(work[0])
        found = _compare(first, right, TOLERANCE if tolerance is None else tolerance)
        watcher.advance(work[1])
    finally:
        watcher.finish()
    return replace(found, a=str(a), b=str(b))


def compute_source(plan: Plan) -> Computed:
    """What the source of a conversion computes, before anything is written; `check_forward` compares it.

    Raises what `compare_forward` raises for its first side, and UsageError for a plan that converts no weights.
    """
    source = plan.checkpoint
    if source is None or source.bare:
        raise UsageError(f"{plan.out}: is made without weights, so there is no forward pass to compare with")
    source = _as_converted(source, plan.hops, Options.from_record(plan.facts["options"]))
    made = {tensor.key: tensor.dtype for tensor in plan.tensors}
    source, notes, overflow = _as_cast(source, plan.tensors, made)
    return _compute(source, overflow, 0, notes)


def check_forward(folder: Path, plan: Plan, first: Computed) -> Parity:
    """How what was just written to `folder` computes what the plan's source does.

    Raises VerificationFailed where it does not.
    """
    # What was written looks like any model of its shape.
    written = recognise(folder, Hints(model=first.checkpoint.node.model))
    found = replace(_compare(first, written, TOLERANCE), b=str(plan.out))
    if found.problems:
        raise VerificationFailed(f"{plan.out}: would not compute what {found.a} does: {found.complaint}")
    return found


def _as_converted(checkpoint: Checkpoint, hops: Sequence[Hop], options: Options) -> Checkpoint:
    """A checkpoint that says of itself what its user chose: which of two towers is the model's."""
    config = checkpoint.config
    for rule in hops[0].converter.substitutes if hops[0].side == A else ():
        if options.take is not None:
            config = put(config, rule.flag, options.take == rule.choices[0])
    return replace(checkpoint, config=config)


def _as_cast(
    checkpoint: Checkpoint, planned: Iterable[PlannedTensor], made: Mapping[str, DType]
) -> tuple[Checkpoint, tuple[str, ...], Overflow]:
    """A checkpoint with its weights rounded as the other side's, whose tensors are of the types `made`."""
    names = {id(ref): key for key, ref in checkpoint.tensors.items()}
    wanted = {names[id(each.journey.ref)]: made[each.key] for each in planned if each.journey and each.key in made}
    overflow = Overflow()
    tensors, notes = rounded(checkpoint.tensors, wanted, overflow)
    return replace(checkpoint, tensors=tensors), notes, overflow


def _build(checkpoint: Checkpoint) -> Model:
    """The first model that a provider makes of a checkpoint."""
    if checkpoint.bare:
        raise InputRefused(f"{checkpoint.path}: a params file alone has no weights to compute with")
    found, missing = providers(), None
    for load in found.values():
        try:
            model = load()(checkpoint)
        except ImportError as error:
            # The checkpoint may be another provider's, which needs less.
            missing = error
            continue
        if model is not None:
            return model
    if missing is not None:
        raise UsageError(f'a forward pass needs more: {missing}; `pip install "mmconvert[train]"`') from missing
    raise NoConversion(
        f"{checkpoint.path}: nothing here computes a {checkpoint.node.model} in format {checkpoint.node.format}; "
        f"forward passes are provided by {', '.join(found) or 'no installed package'} (entry points {GROUP})"
    )


def _compute(
    checkpoint: Checkpoint,
    overflow: Overflow,
    seed: int,
    notes: tuple[str, ...],
    sizes: Sizes | None = None,
) -> Computed:
    """What a checkpoint gives for the inputs of a seed, in its own sizes or in those given."""
    model = _build(checkpoint)
    inputs, _ = _draw(checkpoint, sizes or model.sizes, seed)
    return Computed(checkpoint, overflow, seed, model.sizes, inputs, model.outputs(inputs), notes)


def _draw(checkpoint: Checkpoint, sizes: Sizes, seed: int) -> tuple[Inputs, tuple[str, ...]]:
    inputs, notes = draw_inputs(sizes, seed)
    if inputs.input_ids is None and inputs.pixel_values is None:
        raise NoConversion(f"{checkpoint.path}: there is nothing to compute: {'; '.join(notes) or 'it takes no input'}")
    return inputs, notes


def _compare(first: Computed, right: Checkpoint, tolerance: float) -> Parity:
    """What `right` computes against what A has computed, which is computed anew if its inputs do not suit both."""
    left, seed = first.checkpoint, first.seed
    notes = [*left.notes, *right.notes, *first.notes]
    model = _build(right)
    problems = list(disagreements(first.sizes, model.sizes))
    if problems:
        return Parity(str(left.path), str(right.path), tolerance, seed, {}, tuple(notes), tuple(problems))
    sizes = together(first.sizes, model.sizes)
    inputs, said = _draw(right, sizes, seed)
    theirs = model.outputs(inputs)
    del model
    if not _cover(first.inputs, inputs):
        first = _compute(left, first.overflow, seed, first.notes, sizes)
    ours = first.outputs
    common = [name for name in ours if name in theirs]
    if not common:
        mine, other = (", ".join(outputs) or "nothing" for outputs in (ours, theirs))
        raise NoConversion(f"{left.path} gives {mine}, {right.path} {other}: there is nothing to compare")
    outputs = {}
    for key, count in first.overflow.counts.items():
        problems.append(f"{key}: {count:,} values of A become infinite in B's element type")
    for name in common:
        if ours[name].shape != theirs[name].shape:
            problems.append(f"{name}: shape {list(ours[name].shape)} in A, {list(theirs[name].shape)} in B")
            continue
        outputs[name] = each = agreement(ours[name], theirs[name], tolerance, logits=name in LOGITS)
        if not each.ok:
            problems.append(f"{name}: {each.complaint}")
        elif each.nonfinite:
            notes.append(f"{name}: {each.nonfinite:,} values are NaN or infinite, equal on both sides")
    notes += [*said, *only_one_side(ours.keys(), theirs.keys())]
    return Parity(str(left.path), str(right.path), tolerance, seed, outputs, tuple(notes), tuple(problems))


def _cover(mine: Inputs, theirs: Inputs) -> bool:
    """Whether one side was given everything that the other was."""
    import numpy as np

    pairs = ((getattr(mine, each.name), getattr(theirs, each.name)) for each in fields(Inputs))
    return all(y is None or (x is not None and np.array_equal(x, y)) for x, y in pairs)
