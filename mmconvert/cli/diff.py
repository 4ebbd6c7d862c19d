"""`diff`: what is different?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mmconvert.cli.common import PATH, SAYING, hints, reporting
from mmconvert.errors import VerificationFailed
from mmconvert.report import Reporter
from mmconvert.report.diff import difference_document, draw_difference, summarised


@click.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@SAYING
@reporting
def diff(reporter: Reporter, a: Path, b: Path, **given: Any) -> None:
    """What differs between A and B, two checkpoints of one format.

    Keys, shapes, element types, values and config fields; files and folders of tensors without a config will do. What
    options say of a checkpoint, they say of both. Exit code 6 where anything differs.
    """
    from mmconvert import api

    said = hints(**given)
    with reporter.progress("comparing") as progress:
        found = api.diff(a, b, hints_a=said, hints_b=said, progress=progress)
    reporter.result(difference_document(found), lambda: draw_difference(found))
    if not found.equal:
        raise VerificationFailed(summarised(found))


COMMANDS = (diff,)
