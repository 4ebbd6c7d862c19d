"""What `mmconvert` is as a library; the command line and mmsimple use nothing else.

Paths may be strings. Everything raises the exceptions of `mmconvert.errors`; nothing prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmconvert import explanation, manifest, planner, registry
from mmconvert.compare import check_written, compare
from mmconvert.compare_part import compare_part, part_in
from mmconvert.converter import Converter
from mmconvert.demands import Demands, demands
from mmconvert.diagnosis import Diagnosis, examine
from mmconvert.difference import Difference, difference
from mmconvert.errors import UsageError
from mmconvert.execute import execute
from mmconvert.explanation import Explanation
from mmconvert.findings import Findings
from mmconvert.forward import check_forward, compare_forward, compute_source
from mmconvert.inspection import Inspection, look_at
from mmconvert.layouts import NO_HINTS, Checkpoint, Hints
from mmconvert.layouts import recognise as _recognise
from mmconvert.layouts.described import describe
from mmconvert.options import DEFAULTS, Options, Verify
from mmconvert.parity import Parity
from mmconvert.plans import Plan
from mmconvert.progress import Progress
from mmconvert.releases import Release
from mmconvert.relocation import Relocation
from mmconvert.relocation import relocate as _relocate
from mmconvert.sources import TensorRef
from mmconvert.states import read_state, write_state
from mmconvert.synthesis import plan_synthesis
from mmconvert.writing import plan_writing

__all__ = [
    "NO_HINTS",
    "Checkpoint",
    "Demands",
    "Diagnosis",
    "Difference",
    "Explanation",
    "Findings",
    "Hints",
    "Inspection",
    "Options",
    "Parity",
    "Plan",
    "Relocation",
    "convert",
    "diff",
    "doctor",
    "explain",
    "inspect",
    "keys",
    "open",
    "plan",
    "read_state",
    "recognise",
    "relocate",
    "synth",
    "verify",
    "verify_forward",
    "write",
    "write_state",
]

AnyPath = str | Path


def converters(model: str | None = None) -> list[Converter]:
    """Every converter, or those of one model. Raises NoConversion for a model that there is none for."""
    if model is not None:
        registry.check_model(model)
    return [each for each in registry.edges() if model in (None, each.model)]


def plan(
    src: AnyPath,
    out: AnyPath | None,
    to: str,
    *,
    release: Release | None = None,
    options: Options = DEFAULTS,
    hints: Hints = NO_HINTS,
    overwrite: bool = False,
    reads: Sequence[str] | None = None,
) -> Plan:
    """What a conversion of `src` to format `to` (`cs`, `cs-2.4`, `hf`, `llava`, `llava-hf`) at `out` would do.

    Reads headers and small files only. Everything that can be refused without reading tensors is refused here; so is
    a source in none of the formats `reads`, where they are given. Without `out` the plan is one to look at.
    """
    return planner.make_plan(
        Path(src),
        None if out is None else Path(out),
        to,
        release=release,
        options=options,
        hints=hints,
        overwrite=overwrite,
        reads=reads,
    )


def explain(planned: Plan, key: str) -> Explanation:
    """One tensor's journey through a plan, named by its key in the source or in the target; reads a few of its rows.

    Raises UsageError for a key that the plan does not have, naming the nearest ones.
    """
    return explanation.explain(planned, key)


def convert(
    src: AnyPath,
    out: AnyPath,
    to: str,
    *,
    options: Options = DEFAULTS,
    hints: Hints = NO_HINTS,
    overwrite: bool = False,
    fsync: bool = True,
    digest: str = "xxh3",
    resume: bool = False,
    verify: Verify = "keys",
    progress: Progress | None = None,
    on_parity: Callable[[Parity], None] | None = None,
    on_resume: Callable[[Sequence[str]], None] | None = None,
) -> dict[str, Any]:
    """Convert `src` to format `to` at `out` and return the manifest.

    The target appears whole or not at all. `verify` reads it back before it takes its place: headers (`keys`), every
    byte (`bytes`), or headers and what it computes (`forward`, see `verify_forward`; what the source computes is known
    before anything is written, and `on_parity` is told how the two agree). With `resume`, weights files that a run
    before has finished are not written again, and `on_resume` is told their names.
    """
    planned = plan(src, out, to, options=options, hints=hints, overwrite=overwrite)
    return run(
        planned,
        overwrite=overwrite,
        fsync=fsync,
        digest=digest,
        resume=resume,
        verify=verify,
        progress=progress,
        on_parity=on_parity,
        on_resume=on_resume,
    )


def run(
    planned: Plan,
    *,
    overwrite: bool = False,
    fsync: bool = True,
    digest: str = "xxh3",
    resume: bool = False,
    verify: Verify = "keys",
    progress: Progress | None = None,
    on_parity: Callable[[Parity], None] | None = None,
    on_resume: Callable[[Sequence[str]], None] | None = None,
) -> dict[str, Any]:
    """Carry out a plan; see `convert`."""
    if verify == "forward" and planned.facts["options"].get("only") is not None:
        raise UsageError(
            "--verify forward computes with whole models, and --only writes a part; --verify bytes reads it"
        )
    computed = compute_source(planned) if verify == "forward" else None

    def check(folder: Path) -> None:
        check_written(folder, planned, verify)
        if computed is not None:
            found = check_forward(folder, planned, computed)
            if on_parity is not None:
                on_parity(found)

    return execute(
        planned,
        overwrite=overwrite,
        fsync=fsync,
        digest=digest,
        resume=resume,
        progress=progress,
        check=check,
        on_resume=on_resume,
    )


def verify(
    a: AnyPath,
    b: AnyPath | None = None,
    *,
    hints_a: Hints = NO_HINTS,
    hints_b: Hints = NO_HINTS,
    progress: Progress | None = None,
) -> Findings:
    """With `b`: whether it is `a`, converted, bit for bit. Without: whether the folder `a` is what its manifest says.

    Look at the result's `problems`; nothing is raised for a difference.
    """
    if b is None:
        return manifest.check_folder(Path(a), progress)
    part = part_in(Path(b))
    if part is not None:
        return compare_part(Path(a), Path(b), *part, hints_a, progress)
    return compare(Path(a), Path(b), hints_a, hints_b, progress)


def verify_forward(
    a: AnyPath,
    b: AnyPath,
    *,
    hints_a: Hints = NO_HINTS,
    hints_b: Hints = NO_HINTS,
    tolerance: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Parity:
    """Whether `b` computes what `a` computes from the same random inputs, each in an architecture of its own.

    An output may be `tolerance` (2e-5) apart, in units of the largest absolute value of `a`'s that is at least 1. Look
    at the result's `problems`; nothing is raised for a difference. Raises UsageError where torch is not installed,
    NoConversion where there is no forward pass for a side.
    """
    return compare_forward(Path(a), Path(b), hints_a, hints_b, tolerance, seed, progress)


def diff(
    a: AnyPath,
    b: AnyPath,
    *,
    hints_a: Hints = NO_HINTS,
    hints_b: Hints = NO_HINTS,
    progress: Progress | None = None,
) -> Difference:
    """What differs between two checkpoints of one format, or two files or folders of tensors.

    Look at the result's `equal`; nothing is raised for a difference.
    """
    return difference(Path(a), Path(b), hints_a, hints_b, progress)


def keys(model: str, config: AnyPath, to: str | None = None, *, release: Release | None = None) -> Demands:
    """Every tensor that a config of `model` demands in format `to`, see `plan`, or in its own.

    `config` is a Hugging Face config, a CS params file or its model section, or a folder that holds such a config for
    each part of the model; no weights are looked for.
    """
    form, wanted = planner.parse_target(to, release) if to else (None, release)
    return demands(describe(model, Path(config)), form, wanted)


def synth(
    model: str,
    config: AnyPath,
    out: AnyPath,
    to: str | None = None,
    *,
    release: Release | None = None,
    seed: int | None = 0,
    options: Options = DEFAULTS,
    overwrite: bool = False,
    fsync: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a random checkpoint of the shape that `keys` tells, and return its manifest.

    One seed gives one model, whatever the format. Without a seed nothing is drawn: all tensors are zeros, in files that
    have their full size and take no room on the disk.
    """
    planned = plan_synthesis(keys(model, config, to, release=release), Path(out), seed, options, overwrite)
    return run(planned, overwrite=overwrite, fsync=fsync, progress=progress)


def write(
    out: AnyPath,
    model: str,
    section: Mapping[str, Any],
    tensors: Sequence[TensorRef],
    *,
    assets: Mapping[str, bytes] | None = None,
    options: Options = DEFAULTS,
    overwrite: bool = False,
    fsync: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write tensors, wherever they lie, as a CS checkpoint of `model`, and return its manifest.

    They keep their names; `section` is the model's part of the params file, in the newest spelling, and `assets` are
    files by their names below `assets/`. Of the options, `container` and `max_shard_size` are for this. The target
    appears whole or not at all.
    """
    planned = plan_writing(
        Path(out), model, section, tensors, assets=assets or {}, options=options, overwrite=overwrite
    )
    return run(planned, overwrite=overwrite, fsync=fsync, progress=progress)


def doctor(path: AnyPath, reader: str | None = None) -> Diagnosis:
    """Whether the checkpoint in a folder would load in `reader` (`llava`, `transformers`, `cs`), and rightly.

    Without a reader it is the one whose format the folder is in. Headers and small files are all that is read. Look at
    the result's `symptoms`; nothing is raised for them.
    """
    return examine(Path(path), reader)


def relocate(path: AnyPath, tower_path: str | None = None) -> Relocation:
    """Set right what the config of a moved checkpoint says of its tower's place, and the manifest with it.

    `path` is the folder of that config, or the one that holds it and the tower. `tower_path` is the tower's folder, if
    it lies neither beside nor where the config says; or `absolute` (the default), `relative` or a name, as conversions
    take it. Look at the result's `changed`: nothing is written where all is right.
    """
    return _relocate(Path(path), tower_path)


def open(path: AnyPath, *, hints: Hints = NO_HINTS) -> Mapping[str, TensorRef]:
    """The tensors of a checkpoint by name, unread: `mmconvert.open(path)["model.norm.weight"].read()`."""
    return recognise(path, hints=hints).tensors


def recognise(path: AnyPath, *, hints: Hints = NO_HINTS) -> Checkpoint:
    """What a path holds, for other programs: its model and format, its config, and its tensors, unread.

    Raises UsageError if there is nothing, InputRefused if it is nothing that is known here, with the reason.
    """
    return _recognise(Path(path), hints)


def inspect(
    path: AnyPath, *, hints: Hints = NO_HINTS, scan: bool = False, progress: Progress | None = None
) -> Inspection:
    """What a path holds: its format and how it was known, its tensors and files, and what it can be converted to.

    What would stop a conversion is said in `refused`; the rest is told all the same. With `scan` the data is read too,
    for values that are not finite; `progress` hears of that.
    """
    return look_at(Path(path), hints, scan, progress)
