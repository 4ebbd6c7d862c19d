"""`verify`: is this what it should be?"""

from __future__ import annotations

from pathlib import Path

import click

from mmconvert.cli.common import EXISTING, PATH, reporting
from mmconvert.errors import UsageError, VerificationFailed
from mmconvert.report import SCHEMA, Reporter
from mmconvert.units import human_bytes

# Enough to see the pattern of what is wrong.
SHOWN = 20


@click.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH, required=False)
@click.option("--config", type=EXISTING, help="The params file of a CS checkpoint, where it lies elsewhere.")
@click.option("--model", help="The model, where the files do not say.")
@reporting
def verify(reporter: Reporter, a: Path, b: Path | None, config: Path | None, model: str | None) -> None:
    """With A and B: B is A, converted, bit for bit. With one folder: it is what its own manifest says."""
    from mmconvert import api

    for path in filter(None, (a, b)):
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
    hints = api.Hints(config=config, model=model)
    with reporter.progress("verifying") as progress:
        found = api.verify(a, b, hints_a=hints, hints_b=api.Hints(model=model), progress=progress)
    document = {
        "schema": SCHEMA,
        "a": str(a),
        "b": str(b) if b else None,
        "ok": not found.problems,
        "tensors": found.tensors,
        "bytes": found.nbytes,
        "problems": found.problems,
        "notes": found.notes,
    }

    def draw() -> None:
        for note in found.notes:
            print(f"note: {note}")
        for problem in found.problems[:SHOWN]:
            print(problem)
        if len(found.problems) > SHOWN:
            print(f"... and {len(found.problems) - SHOWN} more")
        what = f"{b} is {a}, converted" if b else f"{a} is what its manifest says"
        if not found.problems:
            print(f"verified: {what}: {found.tensors} tensors, {human_bytes(found.nbytes)}, bit for bit")

    reporter.result(document, draw)
    if found.problems:
        raise VerificationFailed(f"{b or a}: {len(found.problems)} differences, the first: {found.problems[0]}")


COMMANDS = (verify,)
