"""The built-in converters: one file per model family, tables and the small functions that their rows name.

The folder stands at the top of the repository because it is what a newcomer looks for; it is installed as
`mmconvert.converters`. Files here import each other relatively; everyone else asks `mmconvert.registry`. Beside the
families, `readers/` says what programs make of the checkpoints that they load.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from mmconvert.converter import Converter


def builtin() -> Iterator[Converter]:
    """Every converter of every file in this folder (the entry point of group `mmconvert.converters`)."""
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.ispkg):
        yield from getattr(importlib.import_module(f"{__name__}.{module}"), "CONVERTERS", ())
