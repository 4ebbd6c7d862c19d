"""The files of a target: weights laid out, configs written, carried files put where the format wants them."""

from __future__ import annotations

from mmconvert.spec import A
from mmconvert.targets.cerebras import cerebras
from mmconvert.targets.folders import folders_of_parts
from mmconvert.targets.job import Job, Target
from mmconvert.targets.sidecars import sidecars

__all__ = ["Job", "Target", "lay_out"]


def lay_out(job: Job) -> Target:
    """Lay the target of a path's last hop out."""
    beside = sidecars(job)
    return folders_of_parts(job, beside) if job.hop.other == A else cerebras(job, beside)
