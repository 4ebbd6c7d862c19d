"""The one place that draws: results for people and for scripts on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from mmconvert.units import human_bytes

if TYPE_CHECKING:
    from mmconvert.api import Inspection, Plan
    from mmconvert.converter import Converter
    from mmconvert.progress import Progress

# The version of every JSON document; fields are added, never changed.
SCHEMA = 1


class Reporter:
    """Where a command speaks: `--json`, `-q`, `-v` and `--log-file` are settled here."""

    def __init__(self, as_json: bool = False, quiet: bool = False, verbose: bool = False, log_file: Path | None = None):
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self._log: TextIO | None = log_file.open("a", encoding="utf-8") if log_file else None

    def result(self, document: Any, draw: Callable[[], None]) -> None:
        """The command's answer: one JSON document, or what `draw` prints for people."""
        if self.as_json:
            print(json.dumps(document, indent=2, ensure_ascii=False))
        else:
            draw()

    def summary(self, document: Any, draw: Callable[[], None]) -> None:
        """What a command that has done something says at its end; `-q` needs no words."""
        if self.as_json or not self.quiet:
            self.result(document, draw)

    def note(self, text: str) -> None:
        self._say(text, hidden=self.quiet)

    def detail(self, text: str) -> None:
        self._say(text, hidden=not self.verbose)

    def warn(self, text: str) -> None:
        self._say(f"warning: {text}", hidden=False)

    def error(self, text: str) -> None:
        self._say(f"error: {text}", hidden=False)

    def _say(self, text: str, hidden: bool) -> None:
        if not hidden:
            print(text, file=sys.stderr)
        if self._log is not None:
            print(text, file=self._log, flush=True)

    @contextmanager
    def progress(self, what: str) -> Iterator[Progress | None]:
        """A bar with rate and time left, on a terminal only."""
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        with ExitStack() as stack:
            yield _Bar(what, stack)


class _Bar:
    """`Progress` drawn by rich on stderr."""

    def __init__(self, what: str, stack: ExitStack):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._what = what
        self._bar = stack.enter_context(
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
        )
        self._task: Any = None
        self._held = 0
        self._shown = 0.0

    def start(self, total_bytes: int) -> None:
        self._task = self._bar.add_task(self._what, total=total_bytes)

    def advance(self, nbytes: int) -> None:
        # Drawing is slow next to copying: a few times a second is enough.
        self._held += nbytes
        if monotonic() - self._shown > 0.1:
            self._flush()

    def finish(self) -> None:
        self._flush()

    def _flush(self) -> None:
        self._bar.update(self._task, advance=self._held)
        self._held, self._shown = 0, monotonic()


# --- documents -----------------------------------------------------------------------------------------------------


def converters_document(converters: Iterable[Converter]) -> list[dict[str, Any]]:
    return [
        {
            "model": each.model,
            "a": each.a.name,
            "b": each.b.name,
            "a_releases": [],
            "b_releases": [str(release) for release in each.b_releases],
            "note": each.note,
        }
        for each in converters
    ]


def plan_document(plan: Plan) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        **plan.facts,
        "out": str(plan.out),
        "bytes_to_write": plan.bytes_to_write,
        "tensors": [
            {
                "key": tensor.key,
                "file": output.layout.name,
                "source": tensor.origin,
                "shape": list(tensor.shape),
                "dtype": tensor.dtype.name,
                "rule": tensor.rule,
                "bytes": tensor.nbytes,
            }
            for output in plan.outputs
            for tensor in output.tensors
        ],
        "documents": sorted(plan.documents),
        "carried": list(plan.carried),
        "dropped": [{"subject": each.subject, "why": each.why} for each in plan.dropped],
        "invented": [{"subject": each.subject, "why": each.why} for each in plan.invented],
        "warnings": list(plan.warnings),
    }


def inspection_document(found: Inspection, keys: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "path": found.path,
        "model": found.model,
        "format": found.format,
        "release": found.release,
        "known_by": found.known_by,
        "release_from": found.release_from,
        "tensors": len(found.tensors),
        "parameters": found.parameters,
        "bytes": found.nbytes,
        "dtypes": dict(found.dtypes),
        "sidecars": list(found.sidecars),
        "set_aside": dict(found.set_aside),
        "notes": list(found.notes),
        "problem": found.problem,
        "converts_to": list(found.converts_to),
    }
    if keys:
        document["keys"] = {
            key: {"shape": list(ref.shape), "dtype": ref.dtype.name, "file": ref.file}
            for key, ref in found.tensors.items()
        }
    return document


# --- drawings ------------------------------------------------------------------------------------------------------


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; as wide as it needs to be where stdout is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console() if sys.stdout.isatty() else Console(width=400)
    drawn = Table(*columns, title=title or None, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for row in rows:
        drawn.add_row(*(Text(str(cell)) for cell in row))
    console.print(drawn)


def draw_converters(converters: Iterable[Converter]) -> None:
    rows = []
    for each in converters:
        first, last = each.b_releases[0], each.b_releases[-1]
        rows.append((each.model, each.a.name, f"{each.b.name} {first} to {last}", each.note))
    table("", ("model", "one side", "the other", "note"), rows)


def draw_inspection(found: Inspection, keys: bool) -> None:
    release = f" {found.release} (by {found.release_from})" if found.release else ""
    print(f"{found.path}: {found.model}, format {found.format}{release}, known by {found.known_by}")
    dtypes = ", ".join(f"{count} {name}" for name, count in found.dtypes.items())
    print(f"  {found.parameters:,} parameters in {len(found.tensors)} tensors ({dtypes}), {human_bytes(found.nbytes)}")
    if found.sidecars:
        print(f"  travels along: {', '.join(found.sidecars)}")
    if found.set_aside:
        print(f"  set aside: {_grouped(found.set_aside)}")
    for note in found.notes:
        print(f"  note: {note}")
    print(f"  converts to: {', '.join(found.converts_to)}")
    if found.problem:
        print(f"  as it stands it would be refused: {found.problem}")
    if keys:
        rows = [
            (key, " x ".join(map(str, ref.shape)), ref.dtype, Path(ref.file).name) for key, ref in found.tensors.items()
        ]
        table("", ("tensor", "shape", "dtype", "file"), rows)


def draw_plan(plan: Plan) -> None:
    rows = [
        (
            tensor.origin or "-",
            tensor.key,
            " x ".join(map(str, tensor.shape)),
            tensor.dtype,
            output.layout.name,
            tensor.rule,
        )
        for output in plan.outputs
        for tensor in output.tensors
    ]
    table("", ("source", "target", "shape", "dtype", "file", "how"), rows)
    for title, remarks in (("invented", plan.invented), ("dropped", plan.dropped)):
        if remarks:
            print(f"{title}:")
            for each in remarks:
                print(f"  {each.subject}: {each.why}")
    if plan.carried:
        print(f"carried: {', '.join(plan.carried)}")
    print(" -> ".join(plan.facts["path"]))
    print(f"{len(rows)} tensors, {human_bytes(plan.bytes_to_write)} to write to {plan.out}")


def _grouped(set_aside: Mapping[str, str]) -> str:
    counts: dict[str, int] = {}
    for why in set_aside.values():
        counts[why] = counts.get(why, 0) + 1
    return "; ".join(f"{count} ({why})" for why, count in counts.items())
