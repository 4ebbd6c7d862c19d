"""The conversions: `convert`, the commands that are names for it, and `plan`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from mmconvert.cli.common import EXISTING, FOLDER, PATH, SAYING, release, reporting, stacked
from mmconvert.errors import UsageError
from mmconvert.options import Options, parse_dtype, parse_init
from mmconvert.report import SCHEMA, Reporter
from mmconvert.report.conversions import draw_explanation, draw_plan, explanation_document, grouped, plan_document
from mmconvert.report.forward import verdict
from mmconvert.units import human_bytes, parse_size

if TYPE_CHECKING:
    from mmconvert.parity import Parity
    from mmconvert.plans import Plan


@dataclass(frozen=True)
class Named:
    """A conversion under a name of its own: the formats that it reads, and the one that it writes.

    `layouts` are other formats that it may write, by the names that `--layout` has for them.
    """

    name: str
    reads: tuple[str, ...]
    writes: str
    help: str
    layouts: Mapping[str, str] = field(default_factory=dict)

    def target(self, layout: str | None, only: str | None) -> str:
        """The format that is written; a part alone is in a folder of its own.

        Raises UsageError for a layout that this conversion has not.
        """
        if only is not None and layout is None and "components" in self.layouts:
            layout = "components"
        if layout is not None and layout not in self.layouts:
            raise UsageError(f"--layout is for {' and '.join(each.name for each in NAMED if each.layouts)}")
        return self.writes if layout is None else self.layouts[layout]


# One folder with all parts of a LLaVA in it, or one for each.
LAYOUTS = {"llava-hf": "llava-hf", "components": "hf"}
NAMED = (
    Named(
        "hf-to-cs",
        ("hf", "llava", "llava-hf"),
        "cs",
        "A CLIP, LLaMA or Mistral folder, a tower and a language model, or a LLaVA, to CS.",
    ),
    Named("llava-to-cs", ("llava",), "cs", "What the LLaVA source repository saved, to CS."),
    Named("cs-to-hf", ("cs",), "hf", "A CS checkpoint to what transformers loads.", LAYOUTS),
    Named("cs-to-llava", ("cs",), "llava", "A CS checkpoint to the folders that the LLaVA source repository loads."),
    Named("llava-to-hf", ("llava",), "llava-hf", "What the LLaVA source repository saved, to transformers.", LAYOUTS),
    Named(
        "hf-to-llava",
        ("hf", "llava-hf"),
        "llava",
        "transformers' LLaVA, or a tower and a language model, to the LLaVA source repository.",
    ),
    Named("cs-to-cs", ("cs",), "cs", "A CS checkpoint, with its params file, to another release or container."),
)

# What a plan counts while the bytes move, in words.
ODD = {
    "overflow": "are too large for the new type and became infinite",
    "beyond_float16": "are too large for float16, to which this format's loader casts them",
}

# Enough to see the pattern; the manifest has them all.
SHOWN = 3

SOURCE = stacked(
    click.option("--src", type=PATH, required=True, help="A folder, a file, or a hub cache folder."),
    SAYING,
)
TARGET = stacked(
    click.option("--to-release", help="The CS release to write (2.10, 2.4, ...)  [default: the newest]"),
    click.option(
        "--container",
        type=click.Choice(["mdl", "safetensors", "bin"]),
        help="For CS targets, mdl or safetensors  [default: mdl]; for a projector alone, bin or safetensors  "
        "[default: bin]",
    ),
    click.option(
        "--dtype", default="keep", show_default=True, help="keep, fp32, fp16, bf16, or text=bf16,vision=fp32."
    ),
    click.option("--max-shard-size", help="For safetensors  [default: 5GB]"),
    click.option(
        "--init", multiple=True, metavar="PART=uniform:SEED", help="Make what is missing: projector, lm_head, ..."
    ),
    click.option("--tower", type=click.Choice(["text", "image"]), help="Which of two towers to take."),
    click.option(
        "--tower-path",
        help="In LLaVA's config: absolute, relative, or any name  [default: absolute]",
    ),
    click.option(
        "--only",
        type=click.Choice(["vision", "projector", "text"]),
        help="One part of a multimodal model, as a folder of its own.",
    ),
    click.option("--tokenizer", type=FOLDER, help="A folder whose tokenizer replaces the source's."),
    click.option(
        "--params",
        type=EXISTING,
        help="A params file (CS targets) into which the model is put; how it trains stays as the file says.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace what stands at --out."),
)
RUN = stacked(
    click.option(
        "--verify",
        type=click.Choice(["none", "keys", "bytes", "forward"]),
        default="keys",
        show_default=True,
        help="Read back what; forward: and compute with it.",
    ),
    click.option("--digest", type=click.Choice(["xxh3", "sha256", "none"]), default="xxh3", show_default=True),
    click.option("--resume", is_flag=True, help="Keep the weights files that a run which was stopped has finished."),
    click.option("--no-fsync", is_flag=True, help="Do not wait for the disk."),
    click.option("--dry-run", is_flag=True, help="Plan only: print the whole mapping."),
)


def _make_plan(reads: tuple[str, ...] | None, to: str, out: Path | None, given: dict[str, Any]) -> Any:
    """The plan for what a user typed."""
    from mmconvert import api

    src: Path = given["src"]
    hints = api.Hints(
        config=given["config"],
        model=given["model"],
        format=given.get("from_format"),
        release=release(given["from_release"], "--from-release"),
        vision_tower=given["vision_tower"],
        encoder=given["encoder"],
    )
    inits = [parse_init(text) for text in given["init"]]
    if len({name for name, _ in inits}) != len(inits):
        raise UsageError("--init names the same part twice")
    options = Options(
        container=given["container"],
        dtype=parse_dtype(given["dtype"]),
        init=dict(inits),
        max_shard_size=None if given["max_shard_size"] is None else parse_size(given["max_shard_size"]),
        take=given["tower"],
        tower_path=given["tower_path"],
        tokenizer=given["tokenizer"],
        only=given["only"],
        params=given["params"],
    )
    wanted = release(given["to_release"], "--to-release")
    return api.plan(
        src, out, to, release=wanted, options=options, hints=hints, overwrite=given["overwrite"], reads=reads
    )


def _show_plan(reporter: Reporter, plan: Any) -> None:
    for warning in plan.warnings:
        reporter.warn(warning)
    reporter.result(plan_document(plan), lambda: draw_plan(plan))


def _convert(reporter: Reporter, reads: tuple[str, ...] | None, to: str, out: Path | None, **given: Any) -> None:
    from mmconvert import api

    if out is None and not given["dry_run"]:
        raise UsageError("--out is missing: where should the result stand?")
    plan = _make_plan(reads, to, out, given)
    if given["dry_run"]:
        _show_plan(reporter, plan)
        return
    for warning in plan.warnings:
        reporter.warn(warning)
    reporter.detail(" -> ".join(plan.facts["path"]))
    started = monotonic()
    with reporter.progress(plan.out.name) as progress:
        document = api.run(
            plan,
            overwrite=given["overwrite"],
            fsync=not given["no_fsync"],
            digest=given["digest"],
            resume=given["resume"],
            verify=given["verify"],
            progress=progress,
            on_parity=lambda found: _say_parity(reporter, found),
            on_resume=lambda names: _say_kept(reporter, names, plan),
        )
    seconds = monotonic() - started
    for what, why in ODD.items():
        for subject, count in document.get(what, {}).items():
            reporter.warn(f"{subject}: {count:,} values {why}")
    summary = {
        "schema": SCHEMA,
        "out": str(plan.out),
        "tensors": len(plan.tensors),
        "bytes": plan.bytes_to_write,
        "seconds": round(seconds, 3),
        "manifest": str(plan.out / "mmconvert.json"),
        "dropped": len(plan.dropped),
        "invented": [each.subject for each in plan.invented],
        "warnings": list(plan.warnings),
    }

    def draw() -> None:
        rate = human_bytes(int(plan.bytes_to_write / max(seconds, 1e-6)))
        print(
            f"{plan.out}: {len(plan.tensors)} tensors, {human_bytes(plan.bytes_to_write)} in {seconds:.1f} s ({rate}/s)"
        )
        for line in grouped(plan.invented):
            print(f"  invented: {line}")
        dropped = grouped(plan.dropped)
        for line in dropped[:SHOWN]:
            print(f"  dropped: {line}")
        if len(dropped) > SHOWN:
            print(f"  dropped: more, for {len(dropped) - SHOWN} other reasons: see {plan.out / 'mmconvert.json'}")

    reporter.summary(summary, draw)


def _say_kept(reporter: Reporter, names: Sequence[str], plan: Plan) -> None:
    reporter.note(f"{len(names)} of {len(plan.outputs)} weights files were finished before")


def _say_parity(reporter: Reporter, found: Parity) -> None:
    for note in found.notes:
        reporter.note(f"note: {note}")
    reporter.note(f"verified: {verdict(found)}")


OUT = click.option("--out", type=PATH, help="The folder to write; it appears when all is done.")
TO = click.option("--to", required=True, metavar="FORMAT", help="cs, cs-2.10, hf, llava, llava-hf.")
FROM = click.option(
    "--from", "from_format", metavar="FORMAT", help="The source's format, where the files leave it open."
)


def _layout(default: str = "") -> Callable[[Any], Any]:
    words = f"Of a multimodal model: one folder, or one for each part.{default}"
    return click.option("--layout", type=click.Choice(list(LAYOUTS)), help=words)


@click.command("convert")
@SOURCE
@FROM
@TO
@OUT
@TARGET
@RUN
@reporting
def convert(reporter: Reporter, to: str, out: Path | None, **given: Any) -> None:
    """Anything to any format that a path leads to."""
    _convert(reporter, None, to, out, **given)


def _named(named: Named) -> click.Command:
    default = next((layout for layout, form in named.layouts.items() if form == named.writes), None)

    @click.command(named.name, help=named.help)
    @SOURCE
    @stacked(*([_layout(f"  [default: {default}]")] if named.layouts else []))
    @OUT
    @TARGET
    @RUN
    @reporting
    def command(reporter: Reporter, out: Path | None, layout: str | None = None, **given: Any) -> None:
        _convert(reporter, named.reads, named.target(layout, given["only"]), out, **given)

    return command


@click.command("plan")
@click.argument("conversion", type=click.Choice([named.name for named in NAMED]), required=False)
@SOURCE
@FROM
@click.option("--to", metavar="FORMAT", help="cs, cs-2.10, hf, llava, llava-hf; or name a CONVERSION.")
@_layout()
@OUT
@TARGET
@click.option("--key", help="Explain one tensor's journey, named as the source or the target names it.")
@reporting
def plan(
    reporter: Reporter,
    conversion: str | None,
    to: str | None,
    layout: str | None,
    out: Path | None,
    key: str | None,
    **given: Any,
) -> None:
    """What a conversion would do, tensor by tensor: any conversion's --dry-run."""
    named = next((each for each in NAMED if each.name == conversion), None)
    if (named is None) == (to is None):
        raise UsageError("plan what? Name a conversion, such as `mmconvert plan hf-to-cs`, or a format with --to")
    if named is None and layout is not None:
        raise UsageError("--layout is for the conversions that have a name; --to says the format")
    planned = _make_plan(
        named.reads if named else None, named.target(layout, given["only"]) if named else str(to), out, given
    )
    if key is None:
        _show_plan(reporter, planned)
    else:
        from mmconvert import api

        found = api.explain(planned, key)
        reporter.result(explanation_document(found), lambda: draw_explanation(found))


COMMANDS = (plan, *(_named(named) for named in NAMED), convert)
