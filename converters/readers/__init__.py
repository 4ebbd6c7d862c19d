"""What programs make of the checkpoints that they load, for `mmconvert doctor`: a file and a table for each program.

`traps_*` hold the functions that these rows name, `view_*` what they look at.
"""

from __future__ import annotations

from collections.abc import Iterator

from mmconvert.diagnosis import AnyReader


def builtin() -> Iterator[AnyReader]:
    """Every reader of this folder (the entry point of group `mmconvert.readers`)."""
    from . import cs, llava, transformers

    for each in (cs, llava, transformers):
        yield from each.READERS
