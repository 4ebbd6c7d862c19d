"""From a source and a wish to a plan, reading headers and small files only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmconvert import registry, targets
from mmconvert.assembly import assemble
from mmconvert.errors import NoConversion, UsageError
from mmconvert.layouts import NO_HINTS, Checkpoint, Hints, recognise
from mmconvert.options import CONTAINER, DEFAULTS, Options
from mmconvert.plans import Plan
from mmconvert.registry import Hop
from mmconvert.releases import Release
from mmconvert.sources import stamp
from mmconvert.spec import A, B, Expansion
from mmconvert.staging import check_target


def parse_target(text: str, release: Release | None = None) -> tuple[str, Release | None]:
    """`cs`, `cs-2.10`, `hf`, `llava` as format and release; `release` may be given apart.

    Raises NoConversion for a release that is none, UsageError for two of them.
    """
    name, dash, said = text.partition("-")
    if name != "cs" or not dash:
        return text, release
    try:
        parsed = Release.parse(said)
    except ValueError as error:
        raise NoConversion(f"{text}: {error}") from error
    if release not in (None, parsed):
        raise UsageError(f"{text} names release {parsed}, --to-release {release}: which one?")
    return name, parsed


def make_plan(
    src: Path,
    out: Path | None,
    to: str,
    *,
    release: Release | None = None,
    options: Options = DEFAULTS,
    hints: Hints = NO_HINTS,
    overwrite: bool = False,
    reads: Sequence[str] | None = None,
) -> Plan:
    """Plan a conversion of `src`, which must be in one of the formats `reads` where they are given, to format `to`.

    Without `out` the plan is one to look at: it says where the target would stand beside the source, and checks no
    place. Raises what the kind of trouble asks for: UsageError, InputRefused, NoConversion, OutputRefused.
    """
    form, wanted = parse_target(to, release)
    checkpoint = recognise(src, hints)
    stamps = {path: stamp(path) for path in checkpoint.files}
    node = checkpoint.node
    if reads is not None and node.format not in reads:
        raise NoConversion(
            f"{src} is a {node.model} in format {node.format}, and this command reads {' and '.join(reads)}; "
            f"`mmconvert convert --to {form}` takes anything"
        )
    hops = registry.path(node.model, node.format, form)
    release = registry.release_of(hops, wanted)
    _check_fit(options, hints, hops, checkpoint)
    place = out if out is not None else src.absolute().parent / f"{src.absolute().name}-{form}"
    if out is not None:
        check_target(out, overwrite, [src, *checkpoint.folders])
    assembly = assemble(checkpoint, hops, options)
    _check_names(options, assembly.legs[0].expansion)
    job = targets.Job(checkpoint, hops[-1], release, place, options, assembly)
    return replace(_plan(src, hops, job, targets.lay_out(job)), files=stamps)


def _check_fit(options: Options, hints: Hints, hops: Sequence[Hop], checkpoint: Checkpoint) -> None:
    """Refuse what a user said that has nothing to act on: silence would look like consent. Raises UsageError."""
    first, last = hops[0], hops[-1]
    converter = first.converter
    from_cs, to_cs = first.source is converter.b, last.other == B
    as_mdl = to_cs and (options.container or CONTAINER) == "mdl"
    bare = checkpoint.bare
    alone, home = last.target.alone.get(options.only or ""), converter.home
    place = home.tokenizer[0] if home.tokenizer else None
    has_tokenizer = alone is not None and alone.whole and alone.folder == place
    idle = {
        f"--from {hints.format}: {checkpoint.path} is in format {first.source.name}": hints.format is not None
        and hints.format != first.source.name,
        "--config: the source is a params file itself": hints.config is not None and bare,
        "--container mdl is for CS targets; others are safetensors": options.container == "mdl" and not to_cs,
        "--container bin is for a projector alone (--only projector)": options.container == "bin"
        and options.only != "projector",
        f"--only takes a part out of a multimodal model; this is a {converter.model} and has no other": options.only
        is not None
        and not first.converter.home.tower,
        f"--only: {last.target.name} holds all parts in one; for the folder of one, --layout components or --to hf": (
            options.only is not None and not to_cs and not last.target.alone
        ),
        "--only is for Hugging Face and LLaVA targets; convert what it writes to CS": options.only is not None
        and to_cs,
        f"--only {options.only}: the parts are {', '.join(last.target.alone)}": options.only is not None
        and alone is None,
        f"--tokenizer: the {options.only} has none": options.tokenizer and alone is not None and not has_tokenizer,
        f"--tower is for the vision tower, and the {options.only} is written": options.take
        and options.only not in (None, "vision"),
        "--max-shard-size is for safetensors": options.max_shard_size is not None
        and (as_mdl or (alone is not None and (options.container or alone.container) == "bin")),
        "--tower-path is for targets whose config says where the tower lies": options.tower_path is not None
        and not (last.target.links if options.only is None else alone is not None and alone.tower),
        "--dtype, --init, --container and --max-shard-size are for weights, and this is a params file alone": bare
        and (options.dtype or options.init or options.container or options.max_shard_size),
        "--config describes a CS checkpoint; this source has its own config.json": hints.config and not from_cs,
        "--from-release is for CS sources": hints.release and not from_cs,
        "--encoder is for CS sources": hints.encoder is not None and not from_cs,
        "--vision-tower is for sources with a tower in a folder of its own": hints.vision_tower
        and (from_cs or first.source.tower is None),
        "--tower is for LLaVA sources, which may hold two": options.take and (from_cs or not converter.substitutes),
        "--tokenizer: there is none here to replace": options.tokenizer and converter.home.tokenizer is None,
        "--params is for CS targets": options.params and last.other == A,
    }
    for why, said in idle.items():
        if said:
            raise UsageError(why)


def _check_names(options: Options, expansion: Expansion) -> None:
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


def _plan(src: Path, hops: Sequence[Hop], job: targets.Job, target: targets.Target) -> Plan:
    checkpoint, assembly, options = job.checkpoint, job.assembly, job.options
    configs, binding = assembly.legs[0].configs, hops[-1].target.binding
    # Where both sides are bound, there is nothing of the home's to be left out.
    loses = binding is not None and hops[0].source.binding is None
    unsaid = [path for path in configs.carried if loses and binding is not None and binding.has_no_field(path)]
    advice = hops[-1].converter.advice(assembly.legs[-1].config_a, checkpoint.original)
    facts: dict[str, Any] = {
        "source": {
            "model": checkpoint.node.model,
            "format": checkpoint.node.format,
            "release": _text(checkpoint.node.release),
        },
        "target": {"model": job.hop.converter.model, "format": job.hop.target.name, "release": _text(job.release)},
        "path": [str(hop) for hop in hops],
        "options": options.recorded(),
        "config": {
            "carried": [path for path in configs.carried if path not in unsaid],
            "dropped": [
                *({"field": each.subject, "why": each.why} for each in (*configs.dropped, *target.dropped)),
                *({"field": path, "why": f"{job.hop.target.name} has no field for it"} for path in unsaid),
            ],
            "kept": list(target.kept),
        },
    }
    pairs = assembly.legs[0].expected()
    made = {pairs[key].init for key in assembly.holdings.missing}
    unused = [name for name in options.init if name not in made]
    warnings = (
        *checkpoint.notes,
        *configs.warnings,
        *advice,
        *target.warnings,
        *(f"{each.subject} is dropped: {each.why}" for each in target.dropped),
        *(f"--init {name}: nothing was missing, the source's own is used" for name in unused),
    )
    return Plan(
        out=job.out,
        outputs=target.outputs,
        documents=target.documents,
        twins=assembly.holdings.twins,
        dropped=(*assembly.holdings.dropped, *assembly.cut),
        invented=assembly.invented,
        carried=target.carried,
        warnings=tuple(dict.fromkeys(warnings)),
        facts=facts,
        tallies={"overflow": assembly.overflow, "beyond_float16": target.beyond_float16},
        sources=(src, *checkpoint.folders),
        checkpoint=checkpoint,
        hops=tuple(hops),
    )


def _text(release: Release | None) -> str | None:
    return None if release is None else str(release)
