"""The one room that draws: results for people and for scripts on stdout, everything else on stderr.

`reporter` is where a command speaks; beside it, each kind of result has a file that makes its JSON document and its
drawing.
What is imported here, mmsimple's commands speak through too.
"""

from __future__ import annotations

from mmconvert.report.reporter import SCHEMA, Reporter
from mmconvert.report.tables import table

__all__ = ["SCHEMA", "Reporter", "table"]
