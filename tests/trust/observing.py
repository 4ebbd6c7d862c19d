"""A command run in a process of its own, under limits, and all that it did that it should not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.trust.watching import CAN_WATCH, watched

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCRIPTS = Path(sysconfig.get_path("scripts"))
# Seconds until a command is taken to hang; no measure of speed.
WALL = 60
# Modules that only a hostile file would have imported. torch is never needed by mmconvert.
NAMES = ("payload", "dill", "cerebras", "torch", "transformers")


@dataclass(frozen=True)
class Observed:
    """How a command ended, what it wrote and took (`cpu` in seconds, `peak` in resident bytes), and its misdeeds.

    `events` are those of `audit/sitecustomize.py`, `opened` the watched files that were opened.
    """

    code: int
    stdout: str
    stderr: str
    cpu: float
    peak: int
    events: tuple[str, ...]
    opened: frozenset[str]


def observe(
    command: Sequence[object],
    notes: Path,
    *,
    allowed: Sequence[Path] = (),
    foreign: Path,
    names: Sequence[str] = NAMES,
    file_size: int = 0,
) -> Observed:
    """Run a command from the folder `foreign`, of whose files it should open none.

    What is written down about it lies in the folder `notes`. Files may be opened in the `allowed` folders, besides
    those of Python and of this repository. No file may grow beyond `file_size` bytes, unless that is 0.
    """
    log, report = notes / "audit.log", notes / "report.json"
    log.write_bytes(b"")
    folders = [str(folder) for folder in (*allowed, notes, ROOT, sys.prefix, sys.base_prefix, SCRIPTS)]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "PYTHONPATH": str(HERE / "audit"),
        "TRUST_AUDIT_LOG": str(log),
        "TRUST_AUDIT_FOLDERS": os.pathsep.join(map(os.path.realpath, folders)),
        "TRUST_AUDIT_NAMES": " ".join(names),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    limits = [report, WALL, file_size]
    with watched(foreign) if CAN_WATCH else nullcontext(set) as opened:
        done = subprocess.run(
            [sys.executable, "-IS", *map(str, [HERE / "launcher.py", *limits, *command])],
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            cwd=foreign,
            stdin=subprocess.DEVNULL,
            timeout=2 * WALL,
        )
        said = json.loads(report.read_text())
        events = tuple(log.read_text(errors="replace").splitlines())
        return Observed(said["code"], done.stdout, done.stderr, said["cpu"], said["peak"], events, frozenset(opened()))
