"""Training runs that are killed with SIGKILL, wherever that may be, lose nothing, and end as undisturbed ones do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trust.amounts import amount
from tests.trust.conftest import Tell

ROOT = Path(__file__).parents[2]
KILLS = amount(10, 50)
SEEDS = amount(1, 5)
STRIDE = amount(8, 1)
# Much more than it takes.
TIMEOUT = 600


def seen(what: str, folder: Path, *numbers: int) -> dict[str, int]:
    """What `training_kills` has seen, all of which went as it should."""
    command = [sys.executable, "-m", "tests.trust.training_kills", what, str(folder), *map(str, numbers)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_anywhere_a_run_goes_on_and_ends_to_the_bit(seed: int, tmp_path: Path, tell: Tell) -> None:
    found = seen("anywhere", tmp_path, seed, KILLS)
    assert found["killed"] == KILLS
    # Checkpoints are where there is something to spoil.
    assert found["saving"] >= KILLS // 5
    assert found["done"] >= KILLS // 10
    tell("training runs killed anywhere", KILLS)
    tell("of them while they wrote a checkpoint", found["saving"])
    tell("of their ends equal to the bit to an undisturbed run's", found["done"])


def test_killed_while_checkpoints_come_and_go_a_run_keeps_as_many_as_it_promises(tmp_path: Path, tell: Tell) -> None:
    found = seen("rotation", tmp_path, STRIDE)
    assert found["killed"] >= 3
    tell("training runs killed as they renamed or removed a file", found["killed"])
