"""`doctor`: would this load there, and rightly?"""

from __future__ import annotations

from pathlib import Path

import click

from mmconvert.cli.common import PATH, reporting
from mmconvert.errors import VerificationFailed
from mmconvert.report import Reporter
from mmconvert.report.doctor import diagnosis_document, draw_diagnosis


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--for", "reader", metavar="READER", help="llava, transformers or cs  [default: whose format it is in]")
@reporting
def doctor(reporter: Reporter, folder: Path, reader: str | None) -> None:
    """Would the checkpoint in DIR load there, and rightly? From headers alone."""
    from mmconvert import api

    found = api.doctor(folder, reader)
    reporter.result(diagnosis_document(found), lambda: draw_diagnosis(found))
    if not found.ok:
        raise VerificationFailed(f"{folder}: would not load, or not rightly, in {found.title}")


COMMANDS = (doctor,)
