"""What a target is laid out from, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmconvert.assembly import Assembly
from mmconvert.casts import Overflow
from mmconvert.configs import ConfigTable
from mmconvert.converter import Format
from mmconvert.layouts.checkpoint import Checkpoint
from mmconvert.options import Options
from mmconvert.plans import OutputFile
from mmconvert.registry import Hop
from mmconvert.releases import Release
from mmconvert.remark import Remark
from mmconvert.rules import Ignored
from mmconvert.spec import A


@dataclass(frozen=True)
class Target:
    """What lies in the target folder when all is done, but for the manifest.

    Of a params file, `dropped` are fields that found no place, and `kept` those of the model section that stayed.
    """

    outputs: tuple[OutputFile, ...]
    documents: Mapping[str, bytes]
    carried: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    beyond_float16: Overflow = field(default_factory=Overflow)
    dropped: tuple[Remark, ...] = ()
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A conversion whose tensors are known and whose files are not yet: `out` is where the target will stand."""

    checkpoint: Checkpoint
    hop: Hop
    release: Release | None
    out: Path
    options: Options
    assembly: Assembly

    @property
    def source(self) -> Format:
        """The format that the path leads from."""
        return self.assembly.legs[0].hop.source

    @property
    def configs(self) -> set[str]:
        """Names of config files: they travel to CS, and stay behind on the way back, where new ones are written."""
        return {"config.json", *(name for name, _ in self.hop.converter.home.companions.values())}


def never_written(table: ConfigTable) -> set[str]:
    """The fields of side a that are read and never written."""
    return {path for row in table.rows if isinstance(row, Ignored) and row.side == A for path in row.paths}
