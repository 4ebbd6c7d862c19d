"""Tables on stdout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmconvert.excerpt import printable
from mmconvert.report.escaped import beneath


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; as wide as it needs to be where stdout is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stdout = beneath()
    if stdout is None:
        return
    console = Console(file=stdout, width=None if stdout.isatty() else 400)
    drawn = Table(*columns, title=title or None, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for row in rows:
        drawn.add_row(*(Text(printable(str(cell), "\n")) for cell in row))
    console.print(drawn)
