"""From a source and a wish to a plan, reading headers and small files only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmconvert import registry, targets
from mmconvert.assembly import Assembly, assemble
from mmconvert.errors import NoConversion
from mmconvert.layouts import NO_HINTS, Checkpoint, Hints, recognise
from mmconvert.options import DEFAULTS, Options
from mmconvert.plan import Plan
from mmconvert.registry import Hop
from mmconvert.releases import Release
from mmconvert.staging import check_target


def parse_target(text: str) -> tuple[str, Release | None]:
    """`cs`, `cs-2.10`, `hf`, `llava` as format and release. Raises NoConversion for a release that is none."""
    name, dash, release = text.partition("-")
    if name != "cs" or not dash:
        return text, None
    try:
        return name, Release.parse(release)
    except ValueError as error:
        raise NoConversion(f"{text}: {error}") from error


def make_plan(
    src: Path,
    out: Path,
    to: str,
    *,
    options: Options = DEFAULTS,
    hints: Hints = NO_HINTS,
    overwrite: bool = False,
    reads: Sequence[str] | None = None,
) -> Plan:
    """Plan a conversion of `src`, which must be in one of the formats `reads` where they are given, to format `to`.

    Raises what the kind of trouble asks for: UsageError, InputRefused, NoConversion, OutputRefused.
    """
    form, wanted = parse_target(to)
    checkpoint = recognise(src, hints)
    if reads is not None and checkpoint.node.format not in reads:
        raise NoConversion(
            f"{src} is a {checkpoint.node.model} in format {checkpoint.node.format}, and this command reads "
            f"{' and '.join(reads)}; `mmconvert convert --to {to}` takes anything"
        )
    hops = registry.path(checkpoint.node.model, checkpoint.node.format, form)
    release = registry.release_of(hops, wanted)
    check_target(out, overwrite, [src, *checkpoint.folders])
    assembly = assemble(checkpoint, hops, release, options)
    target = targets.lay_out(assembly, hops[-1], release, out, checkpoint, options)
    return _plan(src, out, checkpoint, hops, release, options, assembly, target)


def _plan(
    src: Path,
    out: Path,
    checkpoint: Checkpoint,
    hops: tuple[Hop, ...],
    release: Release | None,
    options: Options,
    assembly: Assembly,
    target: targets.Target,
) -> Plan:
    first = assembly.legs[0].configs
    advice = hops[-1].converter.advice(assembly.legs[-1].config_a, checkpoint.original)
    facts: dict[str, Any] = {
        "source": {
            "model": checkpoint.node.model,
            "format": checkpoint.node.format,
            "release": _text(checkpoint.node.release),
        },
        "target": {"model": hops[-1].converter.model, "format": hops[-1].target.name, "release": _text(release)},
        "path": [str(hop) for hop in hops],
        "options": options.recorded(),
        "config": {
            "carried": list(first.carried),
            "dropped": [{"field": each.subject, "why": each.why} for each in first.dropped],
        },
    }
    unused = [name for name in options.init if not any(f"--init {name} " in each.why for each in assembly.invented)]
    warnings = (
        *checkpoint.notes,
        *advice,
        *target.warnings,
        *(f"--init {name}: nothing was missing, the source's own is used" for name in unused),
    )
    return Plan(
        out=out,
        outputs=target.outputs,
        documents=target.documents,
        twins=assembly.holdings.twins,
        dropped=assembly.holdings.dropped,
        invented=assembly.invented,
        carried=target.carried,
        warnings=tuple(dict.fromkeys(warnings)),
        facts=facts,
        tallies={"overflow": assembly.overflow, "beyond_float16": target.beyond_float16},
        sources=(src, *checkpoint.folders),
        files=checkpoint.files,
    )


def _text(release: Release | None) -> str | None:
    return None if release is None else str(release)
