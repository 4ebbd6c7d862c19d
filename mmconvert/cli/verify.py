"""`verify`: is this what it should be?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmconvert.cli.common import PATH, SAYING, hints, reporting
from mmconvert.errors import InputRefused, UsageError, VerificationFailed
from mmconvert.report import SCHEMA, Reporter
from mmconvert.report.forward import draw_parity, parity_document
from mmconvert.units import human_bytes

if TYPE_CHECKING:
    from mmconvert.api import Hints

# Enough to see the pattern of what is wrong.
SHOWN = 20


@click.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH, required=False)
@SAYING
@click.option("--forward", is_flag=True, help="Compare what A and B compute from the same random inputs.")
@click.option("--tolerance", type=float, metavar="T", help="For --forward: T x max(1, largest value)  [default: 2e-5]")
@reporting
def verify(reporter: Reporter, a: Path, b: Path | None, forward: bool, tolerance: float | None, **said: Any) -> None:
    """With A and B: B is A, converted, bit for bit. With one folder: it is what its own manifest says.

    --from-release and --vision-tower are about A, --model about both, --encoder about each that is CS. --config is
    about what has no params file of its own; where nothing lacks one, about A if that is a CS checkpoint, and else
    about B.
    """
    from mmconvert import api

    for path in filter(None, (a, b)):
        # pathlib would raise for a name that is too long.
        if not os.path.exists(path):
            raise UsageError(f"{path}: no such file or folder")
    if forward:
        if b is None:
            raise UsageError("--forward compares what two checkpoints compute: name A and B")
        _compute(reporter, a, b, *_shared_out(a, b, hints(**said)), tolerance)
        return
    if tolerance is not None:
        raise UsageError("--tolerance is for --forward; without it, bytes are compared")
    hints_a, hints_b = _shared_out(a, b, hints(**said))
    with reporter.progress("verifying") as progress:
        found = api.verify(a, b, hints_a=hints_a, hints_b=hints_b, progress=progress)
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
        for problem in found.problems[:SHOWN]:
            print(problem)
        if len(found.problems) > SHOWN:
            print(f"... and {len(found.problems) - SHOWN} more")
        what = f"{b} is {a}, converted" if b else f"{a} is what its manifest says"
        if not found.problems:
            print(f"verified: {what}: {found.tensors} tensors, {human_bytes(found.nbytes)}, bit for bit")

    _notes(reporter, found.notes)
    reporter.result(document, draw)
    if found.problems:
        raise VerificationFailed(f"{b or a}: {len(found.problems)} differences, the first: {found.problems[0]}")


def _compute(reporter: Reporter, a: Path, b: Path, hints_a: Hints, hints_b: Hints, tolerance: float | None) -> None:
    from mmconvert import api

    with reporter.progress("computing") as progress:
        found = api.verify_forward(a, b, hints_a=hints_a, hints_b=hints_b, tolerance=tolerance, progress=progress)
    _notes(reporter, found.notes)
    reporter.result(parity_document(found), lambda: draw_parity(found))
    if found.problems:
        raise VerificationFailed(f"{b} does not compute what {a} does: {found.complaint}")


def _notes(reporter: Reporter, notes: Sequence[str]) -> None:
    """Beside the result, where that is for people; a JSON document holds them itself."""
    for note in notes if not reporter.as_json else ():
        reporter.note(f"note: {note}")


def _shared_out(a: Path, b: Path | None, said: Hints) -> tuple[Hints, Hints]:
    """What the user said of A, and what of B. Raises UsageError for what has nothing to act on."""
    from mmconvert import api

    if b is None:
        if said != api.Hints():
            raise UsageError(f"{a} is compared with its own manifest, of which there is nothing to say: name A and B")
        return said, said
    about_a, about_b = replace(said, config=None), api.Hints(model=said.model)
    if said.encoder is not None and _format(b, replace(about_b, encoder=said.encoder)) == "cs":
        about_b = replace(about_b, encoder=said.encoder)
        if _format(a, about_a) != "cs":
            about_a = replace(about_a, encoder=None)
    if said.config is not None:
        left, right = _format(a, about_a), _format(b, about_b)
        lacking = left is None or right is None
        if left is None or (left == "cs" and not lacking):
            about_a = replace(about_a, config=said.config)
        if right is None or (left != "cs" and not lacking):
            about_b = replace(about_b, config=said.config)
    return about_a, about_b


def _format(path: Path, said: Hints) -> str | None:
    """The format of a checkpoint; None where it is not recognised as it lies there."""
    from mmconvert import api

    try:
        return api.inspect(path, hints=said).format
    except (UsageError, InputRefused):
        return None


COMMANDS = (verify,)
