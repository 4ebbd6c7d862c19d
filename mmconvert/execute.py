"""Carry out a plan: copy its bytes, check them, write the manifest, and only then let the target appear.

See `mmconvert.copying` for the bytes, and `mmconvert.staging` for how the target takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmconvert import manifest
from mmconvert.copying import Pass, bytes_needed
from mmconvert.errors import InputRefused, UsageError
from mmconvert.plans import Plan
from mmconvert.progress import Progress, Silent
from mmconvert.resumption import Journal
from mmconvert.sources import FILES, Stamp, stamp
from mmconvert.staging import staged, staged_file


def execute(
    plan: Plan,
    *,
    overwrite: bool = False,
    fsync: bool = True,
    digest: str = "xxh3",
    resume: bool = False,
    progress: Progress | None = None,
    check: Callable[[Path], None] | None = None,
    on_resume: Callable[[Sequence[str]], None] | None = None,
) -> dict[str, Any]:
    """Write the target of `plan` and return its manifest; on any failure the target is what it was.

    With `fsync`, every file and folder has reached the disk before the target appears. `digest` is one of
    `mmconvert.digests.NAMES`; `progress` hears of every tensor byte written. `check` is given the folder once all its
    tensors are there and before it takes its place; what it raises ends the run. With `resume`, weights files that a
    run before has finished are kept, see `mmconvert.resumption`, and `on_resume` is told their names; an interrupt or a
    disk that fails leaves those of this run to the next one.

    Raises `InputRefused` if a source ends early, has changed since the plan or has twins that differ, `OutputRefused`
    if the target must not be written to, `DiskError` if it cannot be, and `UsageError` to `resume` without digests.
    """
    if resume and digest == "none":
        raise UsageError("--resume knows by its digest what is finished, and --digest none takes none")
    watcher = progress or Silent()
    try:
        _check_unchanged(plan.files)
        with staged(
            plan.out,
            overwrite=overwrite,
            fsync=fsync,
            bytes_needed=bytes_needed(plan),
            sources=plan.sources,
            resumable=resume,
        ) as staging:
            journal = Journal(staging.path, plan, digest)
            run = Pass(staging.path, fsync, digest, watcher, journal)
            watcher.start(sum(tensor.nbytes for tensor in plan.tensors))
            try:
                if resume:
                    kept = run.take_up(plan)
                    if on_resume is not None:
                        on_resume(kept)
                else:
                    journal.begin()
                run.write(plan)
            finally:
                watcher.finish()
            _check_unchanged(plan.files)
            # Taken before the check, which may read the sources again and count a second time.
            counted = {name: dict(sorted(tally.counts.items())) for name, tally in plan.tallies.items()}
            if check is not None:
                check(staging.path)
            document = manifest.build(run.sealed(plan), run.results, digest, counted)
            run.write_document(manifest.NAME, manifest.render(document))
            journal.remove()
    finally:
        # A later conversion in this process must not read a file that has been replaced meanwhile.
        FILES.close()
    return document


def execute_alone(plan: Plan, *, overwrite: bool, fsync: bool) -> None:
    """Write the one weights file of `plan` at `plan.out`, without a folder and a manifest; raises as `execute` does.

    The file that it replaces may be one that it reads.
    """
    (output,) = plan.outputs
    try:
        _check_unchanged(plan.files)
        with staged_file(plan.out, overwrite=overwrite, fsync=fsync, bytes_needed=bytes_needed(plan)) as staging:
            hidden = replace(output, layout=replace(output.layout, name=staging.name))
            Pass(staging.parent, fsync, "xxh3", Silent()).write(replace(plan, outputs=(hidden,)))
            _check_unchanged(plan.files)
    finally:
        FILES.close()


def _check_unchanged(files: Mapping[Path, Stamp]) -> None:
    """Raise `InputRefused` for a file that is not what it was when it had its stamp."""
    for path, before in files.items():
        if stamp(path) != before:
            raise InputRefused(f"{path}: changed while it was read; convert it again")
