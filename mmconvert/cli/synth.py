"""`keys` and `synth`: what a config demands, and a random checkpoint that has it."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

import click

from mmconvert.cli.common import EXISTING, PATH, release, reporting, stacked
from mmconvert.dtypes import BY_FLAG
from mmconvert.errors import UsageError
from mmconvert.options import Options
from mmconvert.report import SCHEMA, Reporter
from mmconvert.report.keys import draw_keys, keys_document
from mmconvert.units import human_bytes, parse_size

MODEL = stacked(
    click.argument("model"),
    click.option(
        "--config",
        type=EXISTING,
        required=True,
        help="A config.json, a CS params file or its model section; for models of several parts, a folder with a "
        "config.json for each, or a JSON file that holds them by the parts' names.",
    ),
    click.option("--as", "form", metavar="FORMAT", help="cs, cs-2.10, hf, llava, llava-hf  [default: its own]"),
    click.option("--to-release", help="The CS release that is meant (2.10, 2.4, ...)  [default: the newest]"),
)


@click.command()
@MODEL
@reporting
def keys(reporter: Reporter, model: str, config: Path, form: str | None, to_release: str | None) -> None:
    """Every tensor that a config of MODEL demands, with its shape and part; no weights are needed.

    Second copies of a tensor are listed, and are no further parameters. Bytes are those of the config's torch_dtype.
    """
    from mmconvert import api

    found = api.keys(model, config, form, release=release(to_release, "--to-release"))
    reporter.result(keys_document(found), lambda: draw_keys(found))


@click.command()
@MODEL
@click.option("--out", type=PATH, required=True, help="The folder to write; it appears when all is done.")
@click.option("--seed", type=click.IntRange(min=0), help="What the values are drawn from.  [default: 0]")
@click.option("--sparse", is_flag=True, help="Draw nothing: all zeros, in files of full size that take no room.")
@click.option("--dtype", type=click.Choice(list(BY_FLAG)), help="[default: the config's torch_dtype, or else fp32]")
@click.option("--max-shard-size", default="5GB", show_default=True, help="For safetensors.")
@click.option(
    "--container", type=click.Choice(["mdl", "safetensors"]), default="mdl", show_default=True, help="For CS formats."
)
@click.option("--overwrite", is_flag=True, help="Replace what stands at --out.")
@click.option("--no-fsync", is_flag=True, help="Do not wait for the disk.")
@reporting
def synth(
    reporter: Reporter,
    model: str,
    config: Path,
    form: str | None,
    to_release: str | None,
    out: Path,
    seed: int | None,
    sparse: bool,
    **given: Any,
) -> None:
    """A random checkpoint of MODEL, of the shape that a config demands: for tests, demos and benchmarks.

    Values are uniform in ±sqrt(1 / fan-in), those of norm weights in 1 ± sqrt(1 / length). They depend on the seed
    alone: in every format it gives the same model, which a conversion leads to bit for bit. There is no tokenizer.
    """
    from mmconvert import api

    if sparse and seed is not None:
        raise UsageError("--seed: with --sparse nothing is drawn; leave one of them out")
    options = Options(
        container=given["container"],
        dtype={"": BY_FLAG[given["dtype"]]} if given["dtype"] else {},
        max_shard_size=parse_size(given["max_shard_size"]),
    )
    started = monotonic()
    with reporter.progress(out.name) as progress:
        manifest = api.synth(
            model,
            config,
            out,
            form,
            release=release(to_release, "--to-release"),
            seed=None if sparse else seed or 0,
            options=options,
            overwrite=given["overwrite"],
            fsync=not given["no_fsync"],
            progress=progress,
        )
    seconds = monotonic() - started
    for warning in manifest["warnings"]:
        reporter.warn(warning)
    written = sum(each["bytes"] for kind in ("files", "documents") for each in manifest[kind].values())
    summary = {
        "schema": SCHEMA,
        "out": str(out),
        **manifest["target"],
        "tensors": len(manifest["tensors"]),
        "bytes": written,
        "seconds": round(seconds, 3),
        "manifest": str(out / "mmconvert.json"),
        "warnings": manifest["warnings"],
    }
    what = "zeros that take no room" if sparse else f"seed {seed or 0}"

    def draw() -> None:
        tensors = len(manifest["tensors"])
        print(f"{out}: {tensors} tensors, {human_bytes(written)} in {seconds:.1f} s ({what})")

    reporter.summary(summary, draw)


COMMANDS = (keys, synth)
