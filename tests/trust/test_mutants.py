"""Files from strangers, damaged in thousands of ways, are refused or read: nothing crashes, hangs or fills memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.trust.amounts import amount
from tests.trust.conftest import Tell
from tests.trust.mutants import GROWTH_LIMIT, mutant
from tests.trust.mutants_kinds import CONVERTED, KINDS, READ, REFUSED

# A mutant takes some 20 ms; one that hangs is stopped after five seconds of processor time.
SECONDS_PER_MUTANT = 2.0
ROOT = Path(__file__).resolve().parents[2]


def reproduced(kind: str, seed: int | None) -> str:
    return f"mutant {seed} of {kind}; `tests.trust.mutants.mutant({kind!r}, {seed})` makes it again"


@pytest.mark.parametrize("kind", KINDS)
def test_every_mutant_is_refused_or_read(kind: str, tmp_path: Path, tell: Tell) -> None:
    count = amount(KINDS[kind].usual, 2000)
    KINDS[kind].make(tmp_path / "base")
    seed, came, failures = None, Counter[str](), []
    said, ended = run(kind, count, tmp_path)
    for each in said:
        seed = each.get("seed", seed)
        if "failed" in each:
            failures.append(f"{reproduced(kind, seed)}:\n{each['failed']}")
        came.update([each["came"]] if "came" in each else [])
    assert not failures, "\n".join(failures)
    assert ended == "ended by 0", f"{ended} at {reproduced(kind, seed)}"
    assert said[0] == {"intact": CONVERTED}
    assert said[-1]["growth"] <= GROWTH_LIMIT, "kilobytes"
    # Damage that all of it is refused, or none, would not have met what is to be tried.
    assert sum(came.values()) == count
    assert came[REFUSED] >= count // 20, came
    assert came[READ] >= count // 100, came
    tell(f"mutants, none crashed or hung: {kind}", count)
    tell("of these mutants refused", came[REFUSED])
    tell("of these mutants read, all tensors", came[READ] + came[CONVERTED])
    tell("of these mutants converted too", came[CONVERTED])


def run(kind: str, count: int, place: Path) -> tuple[list[dict[str, Any]], str]:
    """What a process of its own says of the mutants of the seeds from 0 on, and how it ended."""
    command = [sys.executable, "-m", "tests.trust.mutants", kind, "0", str(count), str(place / "base"), str(place)]
    with (
        (place / "said").open("w") as said,
        (place / "errors").open("w") as errors,
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=errors) as process,
    ):
        try:
            ended = f"ended by {process.wait(60 + count * SECONDS_PER_MUTANT)}"
        except subprocess.TimeoutExpired:
            process.kill()
            ended = "did not end"
    lines = [json.loads(line) for line in (place / "said").read_text().splitlines()]
    return lines, f"{ended}{(place / 'errors').read_text()[-4000:]}"


def test_a_seed_always_makes_the_same_mutant() -> None:
    assert mutant("safetensors", 1) == mutant("safetensors", 1)
    assert mutant("safetensors", 1) != mutant("safetensors", 2)
