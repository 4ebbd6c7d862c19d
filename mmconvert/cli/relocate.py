"""`relocate`: a LLaVA that was moved, pointed at its tower again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mmconvert.cli.common import PATH, reporting
from mmconvert.report import SCHEMA, Reporter


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.option(
    "--tower-path",
    metavar="PATH",
    help="The tower's folder, where it is not found; or what to say of it: absolute, relative, any name  "
    "[default: absolute]",
)
@reporting
def relocate(reporter: Reporter, folder: Path, tower_path: str | None) -> None:
    """Point a moved or copied LLaVA at its tower again: DIR holds both folders, or is that of the language model.

    The tower is looked for beside the language model first, then where the config says. Only that field of the config
    changes, and the manifest with it.
    """
    from mmconvert import api

    done = api.relocate(folder, tower_path)
    document = {
        "schema": SCHEMA,
        "path": str(folder),
        "config": str(done.config),
        "field": done.field,
        "before": done.before,
        "after": done.after,
        "changed": done.changed,
        "tower": str(done.tower) if done.tower else None,
        "written": [str(each) for each in done.written],
    }

    def draw() -> None:
        if done.changed:
            print(f"{done.config}: {done.field}: {_shown(done.before)} -> {done.after}")
        else:
            print(f"{done.config}: {done.field}: already points there: {done.after}")
            for each in done.written:
                print(f"{each}: brought up to date, for an earlier run was interrupted")

    if done.tower is None:
        reporter.note(f"note: {done.after} is no folder here; it was taken as a name")
    reporter.summary(document, draw)


def _shown(before: Any) -> str:
    """What a config said, which may be anything, for a terminal."""
    if before is None:
        return "absent"
    return before if isinstance(before, str) and before.isprintable() else json.dumps(before)


COMMANDS = (relocate,)
