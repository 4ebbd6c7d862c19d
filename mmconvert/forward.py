"""Does B compute what A computes? Both get the same random inputs, each in an architecture of its own.

How a checkpoint becomes a model is not known here. Packages that know it give forward providers, through the
entry-point group `mmconvert.forward`; the inputs and the comparison are the same for all of them. One model at a time
is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from importlib import metadata
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mmconvert.compare import of_one_model, recorded_options
from mmconvert.dtypes import DType
from mmconvert.errors import InputRefused, NoConversion, UsageError, VerificationFailed
from mmconvert.inputs import Inputs, Sizes, disagreements, draw_inputs, together
from mmconvert.layouts import NO_HINTS, Checkpoint, Hints, recognise
from mmconvert.options import Options
from mmconvert.parity import LOGITS, TOLERANCE, Parity, agreement, only_one_side
from mmconvert.plans import Plan
from mmconvert.progress import Progress, Silent
from mmconvert.rounding import rounding_of

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


# Given a recognised checkpoint, and the element types by part (`""`: all others) that its weights are rounded to first.
# Gives None for a checkpoint of a format or model that it knows nothing of.
Provider = Callable[[Checkpoint, Mapping[str, DType]], Model | None]


@dataclass(frozen=True)
class Computed:
    """What one checkpoint has computed, and from what."""

    checkpoint: Checkpoint
    rounding: Mapping[str, DType]
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
    is larger. Where B holds a narrower element type than A, A's weights are rounded to it first.

    Raises NoConversion for a side that no provider computes, or sides that have no output in common; UsageError where
    what a provider needs is not installed, for a tolerance that is none, or for a hint that has nothing to act on; and
    InputRefused for a side that is broken in itself.
    """
    if tolerance is not None and not (isfinite(tolerance) and tolerance > 0):
        raise UsageError(f"tolerance {tolerance}: must be a finite number above 0, such as {TOLERANCE}")
    if seed < 0:
        raise UsageError(f"seed {seed}: must not be negative")
    left, right = of_one_model(a, b, hints_a, hints_b)
    rounding, notes = rounding_of(_dtypes(left), _dtypes(right), recorded_options(b))
    watcher = progress or Silent()
    work = [sum(ref.nbytes for ref in side.tensors.values()) for side in (left, right)]
    watcher.start(sum(work))
    try:
        first = _compute(left, rounding, seed, notes)
        watcher.advance(work[0])
        found = _compare(first, right, TOLERANCE if tolerance is None else tolerance)
        watcher.advance(work[1])
    finally:
        watcher.finish()
    return replace(found, a=str(a), b=str(b))


def compute_source(plan: Plan) -> Computed:
    """What the source of a conversion computes, before anything is written; `check_forward` compares it.

    Raises what `compare_forward` raises for its first side, and UsageError for a plan that converts no checkpoint.
    """
    source = plan.checkpoint
    if source is None:
        raise UsageError(f"{plan.out}: is made from no checkpoint, so there is no forward pass to compare with")
    options = Options.from_record(plan.facts["options"])
    rounding, notes = rounding_of(_dtypes(source), {tensor.dtype for tensor in plan.tensors}, options)
    return _compute(source, rounding, 0, notes)


def check_forward(folder: Path, plan: Plan, first: Computed) -> None:
    """Raise VerificationFailed unless what was just written to `folder` computes what the plan's source does."""
    # What was written looks like any model of its shape.
    written = recognise(folder, Hints(model=first.checkpoint.node.model))
    found = _compare(first, written, TOLERANCE)
    if found.problems:
        raise VerificationFailed(f"{plan.out}: would not compute what {found.a} does: {'; '.join(found.problems)}")


def _dtypes(checkpoint: Checkpoint) -> set[DType]:
    return {ref.dtype for ref in checkpoint.tensors.values()}


def _build(checkpoint: Checkpoint, rounding: Mapping[str, DType]) -> Model:
    """The first model that a provider makes of a checkpoint."""
    if checkpoint.bare:
        raise InputRefused(f"{checkpoint.path}: a params file alone has no weights to compute with")
    found, missing = providers(), None
    for load in found.values():
        try:
            model = load()(checkpoint, rounding)
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
    rounding: Mapping[str, DType],
    seed: int,
    notes: tuple[str, ...],
    sizes: Sizes | None = None,
) -> Computed:
    """What a checkpoint gives for the inputs of a seed, in its own sizes or in those given."""
    model = _build(checkpoint, rounding)
    inputs, _ = _draw(checkpoint, sizes or model.sizes, seed)
    return Computed(checkpoint, rounding, seed, model.sizes, inputs, model.outputs(inputs), notes)


def _draw(checkpoint: Checkpoint, sizes: Sizes, seed: int) -> tuple[Inputs, tuple[str, ...]]:
    inputs, notes = draw_inputs(sizes, seed)
    if inputs.input_ids is None and inputs.pixel_values is None:
        raise NoConversion(f"{checkpoint.path}: there is nothing to compute: {'; '.join(notes) or 'it takes no input'}")
    return inputs, notes


def _compare(first: Computed, right: Checkpoint, tolerance: float) -> Parity:
    """What `right` computes against what A has computed, which is computed anew if its inputs do not suit both."""
    left, seed = first.checkpoint, first.seed
    notes = [*left.notes, *right.notes, *first.notes]
    model = _build(right, {})
    problems = list(disagreements(first.sizes, model.sizes))
    if problems:
        return Parity(str(left.path), str(right.path), tolerance, seed, {}, tuple(notes), tuple(problems))
    sizes = together(first.sizes, model.sizes)
    inputs, said = _draw(right, sizes, seed)
    theirs = model.outputs(inputs)
    del model
    if not _cover(first.inputs, inputs):
        first = _compute(left, first.rounding, seed, first.notes, sizes)
    ours = first.outputs
    common = [name for name in ours if name in theirs]
    if not common:
        mine, other = (", ".join(outputs) or "nothing" for outputs in (ours, theirs))
        raise NoConversion(f"{left.path} gives {mine}, {right.path} {other}: there is nothing to compare")
    alike = [name for name in common if ours[name].shape == theirs[name].shape]
    outputs = {name: agreement(ours[name], theirs[name], tolerance, logits=name in LOGITS) for name in alike}
    problems += [
        f"{name}: shape {list(ours[name].shape)} in A, {list(theirs[name].shape)} in B"
        for name in common
        if name not in outputs
    ]
    problems += [f"{name}: {each.complaint}" for name, each in outputs.items() if not each.ok]
    notes += [*said, *only_one_side(ours.keys(), theirs.keys())]
    notes += [
        f"{name}: {each.nonfinite:,} values are NaN or infinite, equal on both sides"
        for name, each in outputs.items()
        if each.nonfinite and each.ok
    ]
    return Parity(str(left.path), str(right.path), tolerance, seed, outputs, tuple(notes), tuple(problems))


def _cover(mine: Inputs, theirs: Inputs) -> bool:
    """Whether one side was given everything that the other was."""
    import numpy as np

    pairs = ((getattr(mine, each.name), getattr(theirs, each.name)) for each in fields(Inputs))
    return all(y is None or (x is not None and np.array_equal(x, y)) for x, y in pairs)
