"""`list` and `inspect`: what there is."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from mmconvert.cli.common import PATH, SAYING, hints, reporting
from mmconvert.report import Reporter
from mmconvert.report.looks import converters_document, draw_converters, draw_inspection, inspection_document


@click.command("list")
@click.option("--model", help="Only the converters of this model.")
@reporting
def list_(reporter: Reporter, model: str | None) -> None:
    """Every converter: models, formats, releases."""
    from mmconvert import api

    found = api.converters(model)
    reporter.result(converters_document(found), lambda: draw_converters(found))


@click.command()
@click.argument("path", type=PATH)
@click.option("--keys", is_flag=True, help="Every tensor with its shape, dtype and file.")
@click.option("--scan", is_flag=True, help="Read the data too, for NaN and infinite values.")
@SAYING
@reporting
def inspect(reporter: Reporter, path: Path, keys: bool, scan: bool, **said: Any) -> None:
    """What lies at PATH and what can be done with it, from headers alone unless --scan is given."""
    from mmconvert import api

    with reporter.progress("scanning") if scan else nullcontext() as progress:
        found = api.inspect(path, hints=hints(**said), scan=scan, progress=progress)
    reporter.result(inspection_document(found, keys), lambda: draw_inspection(found, keys))


COMMANDS = (list_, inspect)
