"""Training files that are damaged in any way are refused or read; neither crashes or hangs the process that trains."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.trust.amounts import amount
from tests.trust.conftest import Tell

ROOT = Path(__file__).parents[2]
# Processes, each with its share of the mutants.
SHARES = amount(1, 6)
MUTANTS = amount(300, 1000)
# Much more than they take: each of the few that hang HDF5 takes 2 seconds of the processor.
TIMEOUT = 300
ENDS = ("crashed", "hung")


def test_damaged_training_files_are_refused_or_read(tmp_path: Path, tell: Tell) -> None:
    verdicts: Counter[str] = Counter()
    for share in range(SHARES):
        first, last = share * MUTANTS, (share + 1) * MUTANTS
        command = [sys.executable, "-m", "tests.trust.training_mutants", str(tmp_path), str(first), str(last)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
        lines = [line.partition(" ") for line in done.stdout.splitlines()]
        told = f"status {done.returncode} at mutant {first + len(lines)}: {done.stderr[-2000:]}"
        assert done.returncode == 0, told
        assert [int(seed) for seed, _, _ in lines] == list(range(first, last)), told
        verdicts.update(verdict for _, _, verdict in lines)
    # Of a mutant that is never refused, or never read, nothing would be learned.
    assert verdicts["refused by the guard"] > sum(verdicts.values()) // 10, verdicts
    assert verdicts["read"] > sum(verdicts.values()) // 10, verdicts
    tell("mutants of training files refused or read", sum(verdicts.values()))
    tell("of them crashed or hung the process that looks first", sum(verdicts[f"{end} the guard"] for end in ENDS))
