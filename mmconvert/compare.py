"""Is B what A becomes? Exact comparison of two checkpoints, through the same tables that convert them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mmconvert import manifest, mapping, registry
from mmconvert.assembly import Assembly, assemble
from mmconvert.casts import CASTABLE, Cast, Overflow
from mmconvert.compare_rows import against_config, without_rows_made
from mmconvert.completeness import named, second_copies
from mmconvert.containers import open_file
from mmconvert.containers.shards import inside
from mmconvert.converter import Format
from mmconvert.documents import read_json
from mmconvert.dtypes import DType
from mmconvert.errors import InputRefused, MMConvertError, NoConversion, UsageError, VerificationFailed
from mmconvert.findings import Findings
from mmconvert.layouts import NO_HINTS, Checkpoint, Hints, recognise
from mmconvert.mapping import Leg
from mmconvert.options import DEFAULTS, Options
from mmconvert.paths import get, leaves, without
from mmconvert.plans import Plan, PlannedTensor, Twins
from mmconvert.progress import Progress, Silent
from mmconvert.registry import Hop
from mmconvert.scan import has_nonfinite
from mmconvert.sources import Source, TensorRef, side_by_side
from mmconvert.spec import Config

# Enough names to know which ones are meant.
SHOWN = 4
# Where the model's own section of a params file may stand.
MODEL_SECTIONS = ("model.", "trainer.init.model.")


def compare(
    a: Path, b: Path, hints_a: Hints = NO_HINTS, hints_b: Hints = NO_HINTS, progress: Progress | None = None
) -> Findings:
    """Compare every tensor of `b` with the mapped tensor of `a`, bit for bit, and the configs field by field.

    Casts and invented tensors are known from b's manifest; without one, b's own element types are taken as wanted.
    Raises NoConversion if no path leads from a's format to b's, InputRefused where a side is broken in itself,
    UsageError for a hint that has nothing to act on.
    """
    left, right = of_one_model(a, b, hints_a, hints_b)
    hops = registry.path(left.node.model, left.node.format, right.node.format)
    options = options_of(b, hops)
    assembly = assemble(left, hops, options)
    for twins in assembly.holdings.twins:
        if _differ(twins):
            raise InputRefused(f"{a}: {twins.complaint}")
    leg = _leg_back(right, hops)
    result = Findings(notes=[*left.notes, *right.notes, *_uncompared(left, right)])
    found = _named(right, leg, {tensor.key for tensor in assembly.tensors}, result)
    result.problems += against_config(found, leg)
    _compare_configs(assembly.legs[-1], leg, result)
    if not (b / manifest.NAME).is_file():
        assembly, found = without_rows_made(assembly, found, result)
    _compare_tensors(assembly, found, leg, set(_recorded(b).init), result, progress or Silent())
    return result


def _leg_back(right: Checkpoint, hops: Sequence[Hop]) -> Leg:
    """What B's config demands of B."""
    back = Hop(hops[-1].converter, hops[-1].other)
    (leg,) = mapping.translate([back], right.config, frozenset(right.tensors), right.config_from)
    return leg


def dtypes_of(right: Checkpoint, hops: Sequence[Hop]) -> dict[str, DType]:
    """The element types of B's tensors, by the names of the tables. Raises InputRefused for a config that is wrong."""
    return {key: ref.dtype for key, ref in named(right, _leg_back(right, hops), None, [], []).items()}


def of_one_model(a: Path, b: Path, hints_a: Hints, hints_b: Hints) -> tuple[Checkpoint, Checkpoint]:
    """Both sides, recognised; where one of them looks like another model, it may be the other side's too.

    Raises NoConversion for two models, and what `recognise` raises.
    """
    left, right = recognise(a, hints_a), recognise(b, hints_b)
    _check_hints(a, left, hints_a)
    _check_hints(b, right, hints_b)
    if left.node.model != right.node.model:
        left = _as_model(right.node.model, a, left, hints_a)
    if left.node.model != right.node.model:
        right = _as_model(left.node.model, b, right, hints_b)
    if left.node.model != right.node.model:
        raise NoConversion(
            f"{a} is a {left.node.model}, {b} a {right.node.model}: nothing maps one to the other; "
            "if one of them is a model that looks like it, name that with --model"
        )
    return left, right


def _check_hints(path: Path, checkpoint: Checkpoint, hints: Hints) -> None:
    given = {"--config": hints.config, "--from-release": hints.release, "--encoder": hints.encoder}
    for option, value in given.items():
        if value is not None and checkpoint.node.release is None:
            raise UsageError(f"{option} is for CS checkpoints, and {path} is none")
    if hints.vision_tower is not None and checkpoint.node.release is not None:
        raise UsageError(f"--vision-tower is for sources with a tower in a folder of its own, and {path} is a CS one")


def _as_model(model: str, path: Path, checkpoint: Checkpoint, hints: Hints) -> Checkpoint:
    """A checkpoint as one of `model`, if it may be; the checkpoint itself where its user named another, or it is not.

    A CS section is of any model that a user names, so its shape is looked at first.
    """
    forms = [converter.format(side) for converter, side in registry.formats() if converter.model == model]
    alike = any(form.name == checkpoint.node.format and _fits(form, checkpoint.config) for form in forms)
    if hints.model is not None or not alike:
        return checkpoint
    try:
        return recognise(path, replace(hints, model=model))
    except InputRefused:
        return checkpoint


def _fits(form: Format, config: Config) -> bool:
    if "" in form.parts:
        return form.parts[""](config)
    return form.parts.keys() == config.keys() and all(known(config[part]) for part, known in form.parts.items())


def _uncompared(left: Checkpoint, right: Checkpoint) -> list[str]:
    """What is told of two CS checkpoints whose params files say more than their models."""
    if not (left.params and right.params):
        return []
    paths = [f"{path}." for each in (left, right) for path, _ in leaves(each.params)]
    more = not all(path.startswith(MODEL_SECTIONS) for path in paths)
    return ["the model sections are compared; of params files no more"] if more else []


def options_of(folder: Path, hops: tuple[Hop, ...]) -> Options:
    """What to compare a folder with: what it was converted with, if it says so, inventing whatever may be missing."""
    recorded = _recorded(folder)
    return replace(recorded, init={**_everything(hops), **recorded.init})


def _recorded(folder: Path) -> Options:
    try:
        return Options.from_record(read_json(inside(folder, manifest.NAME), manifest.LIMITS)["options"])
    except (MMConvertError, KeyError, TypeError, ValueError, AttributeError):
        return DEFAULTS


def _everything(hops: tuple[Hop, ...]) -> dict[str, int]:
    """Leave to invent whatever may be missing: what is not in `a` is not compared, but named."""
    return {name: 0 for table in hops[0].converter.tables for row in table.rows if (name := getattr(row, "init", None))}


def _named(checkpoint: Checkpoint, leg: Leg, expected: Container[str], result: Findings) -> dict[str, TensorRef]:
    """B's tensors under the names of the tables; a second copy that is not expected and differs is a problem."""
    twins: list[Twins] = []
    try:
        found = named(checkpoint, leg, None, [], twins)
        twins += [each for each in second_copies(found, leg) if each.twin.key not in expected]
    except InputRefused as error:
        result.problems.append(str(error))
        return dict(checkpoint.tensors)
    result.problems += [each.complaint for each in twins if _differ(each)]
    # Of two copies, either one stands for both.
    for twin in leg.twins_read():
        if twin.key in found:
            found.setdefault(twin.of, found[twin.key])
    return found


def _differ(twins: Twins) -> bool:
    return not _equal(twins.kept.source, twins.twin)


def _compare_configs(mapped: Leg, found: Leg, result: Findings) -> None:
    table, side = mapped.hop.converter.configs, mapped.hop.other
    expected, actual = table.space(side).read(mapped.configs.target), found.configs.source
    for path in mapped.hop.target.of_training:
        wanted, value = get(expected, path), get(actual, path)
        if wanted != value:
            result.notes.append(f"{path} is {value!r} in B, not {wanted!r}: a matter of training, not of the model")
        expected, actual = without(expected, path), without(actual, path)
    result.problems += [f"config: {each}" for each in table.differences(side, expected, actual)]


def _compare_tensors(
    assembly: Assembly,
    found: Mapping[str, TensorRef],
    leg: Leg,
    made: set[str],
    result: Findings,
    progress: Progress,
) -> None:
    expected = {tensor.key: tensor for tensor in assembly.tensors}
    accounted = expected.keys() | {twin.key for twin in leg.twins_read()}
    for key in sorted(found.keys() - accounted):
        if leg.expansion.dropped(leg.hop.side, key) is None:
            result.problems.append(f"{key}: only in B")
    progress.start(sum(tensor.nbytes for tensor in assembly.tensors))
    broken: list[str] = []
    strange: list[str] = []
    inits = {pair.name(leg.hop.side): pair.init for pair in leg.expansion.pairs}
    try:
        for key, tensor in expected.items():
            if tensor.origin is None and inits[key] not in made:
                strange.append(key)
            elif key in found:
                broken += compare_one(tensor, found[key], result, progress)
            elif not _is_optional(key, leg):
                result.problems.append(f"{key}: missing in B")
    finally:
        progress.finish()
    if strange:
        result.notes.append(f"not in A, so not compared: {_listed(strange)}")
    if broken:
        result.notes.append(f"NaN or infinite values, equal on both sides: {_listed(broken)}")


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more


def _is_optional(key: str, leg: Leg) -> bool:
    return any(twin.key == key and twin.optional for twin in leg.twins_read())


def compare_one(tensor: PlannedTensor, found: TensorRef, result: Findings, progress: Progress) -> Iterator[str]:
    """Compare one tensor; yields its key if it holds values that are not finite."""
    if tensor.shape != found.shape:
        result.problems.append(f"{tensor.key}: shape {list(found.shape)}, expected {list(tensor.shape)}")
        return
    source: Source = tensor.source
    if tensor.dtype != found.dtype:
        if tensor.dtype not in CASTABLE or found.dtype not in CASTABLE or isinstance(source, Cast):
            result.problems.append(f"{tensor.key}: {found.dtype}, expected {tensor.dtype}")
            return
        source = Cast(source, tensor.dtype, found.dtype, tensor.key, Overflow())
        if not any(note.startswith("B holds") for note in result.notes):
            result.notes.append(f"B holds {found.dtype} where A holds {tensor.dtype}; compared after that cast")
    result.tensors += 1
    result.nbytes += found.nbytes
    differing, odd = _stream(source, found, progress)
    if differing is not None:
        element = differing // found.dtype.itemsize
        result.problems.append(
            f"{tensor.key}: differs from A's {tensor.origin or 'seeded values'} at element {element:,}"
        )
    elif odd:
        yield tensor.key


def _stream(source: Source, found: TensorRef, progress: Progress) -> tuple[int | None, bool]:
    """The first byte at which a tensor differs, and whether it holds anything that is not finite."""
    odd = False
    for start, left, right in side_by_side(source, found.source, found.nbytes):
        progress.advance(len(right))
        if bytes(left) != bytes(right):
            return start + next(at for at in range(len(right)) if left[at] != right[at]), odd
        odd = odd or has_nonfinite(right, found.dtype)
    return None, odd


def _equal(source: Source, found: TensorRef) -> bool:
    return all(bytes(left) == bytes(right) for _, left, right in side_by_side(source, found.source, found.nbytes))


def check_written(folder: Path, plan: Plan, level: str) -> None:
    """Read a folder that has just been written back, before it takes its place.

    `bytes` compares every tensor with the plan; any other level but `none` the header of every file. Raises
    VerificationFailed.
    """
    if level == "none":
        return
    for output in plan.outputs:
        found = _reopen(folder / output.layout.name)
        for tensor in output.tensors:
            ref = found.pop(tensor.key, None)
            if ref is None or (ref.dtype, ref.shape) != (tensor.dtype, tensor.shape):
                raise VerificationFailed(f"{output.layout.name}: {tensor.key} does not read back as it was planned")
            if level == "bytes" and not _equal(tensor.source, ref):
                raise VerificationFailed(f"{output.layout.name}: {tensor.key} does not read back as it was written")
        if found:
            raise VerificationFailed(f"{output.layout.name}: holds {next(iter(found))}, which was not planned")


def _reopen(path: Path) -> dict[str, TensorRef]:
    if path.suffix == ".mdl":
        from mmconvert.containers import mdl_read

        return dict(mdl_read.read_file(path, path.name).tensors)
    return dict(open_file(path)[0])
