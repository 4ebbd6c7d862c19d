"""Training next to transformers' Trainer: tokens a second and memory, as the Markdown tables of the README.

    python benchmarks/train.py [--shape small|1b] [--dtype fp32|bf16|fp16] [--device cpu|cuda] [--updates 8] [--runs 3]

The same LLaVA (random weights) learns from the same samples in the same order, in both phases: with `mmsimple train`,
without and with `cache: features`, in micro batches; and as `LlavaForConditionalGeneration` with `Trainer` and its
default optimizer, in whole batches and in micro batches of the same size, each padded to its longest text. Every run is
a process of its own, and they take turns. Tokens are without padding, image tokens included; seconds are those of
updates, with reading, and without what is done once: loading, making features (told apart), saving. Two updates of each
run warm up. All losses are compared, so that it is seen that the same is computed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from convert import ENVIRONMENT, machine
from train_material import PHASES, SHAPES, make

SIDES = {
    "transformers": "transformers, whole batches",
    "accumulation": "transformers, accumulation",
    "mmsimple": "`mmsimple`",
    "features": "`mmsimple`, `cache: features`",
}
SCRIPT = str(Path(__file__).with_name("train_sides.py"))
WARM_UP = 2
HEAD = """\
| phase | trained by | tokens/s | ratio to the faster transformers (min to max) | peak memory |
|---|---|--:|--:|--:|"""


@dataclass(frozen=True)
class Row:
    """What was measured of a side in a phase: tokens a second of each run in order, losses, bytes at the peak."""

    phase: int
    side: str
    speed: list[float]
    losses: list[float]
    memory: int

    def line(self, others: Row) -> str:
        """A line of the table; `others` is the row whose speed is the unit of this one's."""
        ratios = [ours / theirs for ours, theirs in zip(self.speed, others.speed, strict=True)]
        cells = (
            str(self.phase),
            SIDES[self.side],
            f"{median(self.speed):,.0f}",
            "" if self is others else f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{self.memory / 1e6:,.0f} MB",
        )
        return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Training next to transformers' Trainer.")
    parser.add_argument("--shape", choices=SHAPES, default="small", help="[default: small]")
    parser.add_argument("--updates", type=int, default=8, help="of each run, two of them to warm up  [default: 8]")
    parser.add_argument("--runs", type=int, default=3, help="of each side that count  [default: 3]")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32", help="[default: fp32]")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="[default: a GPU where there is one]")
    parser.add_argument("--folder", default="/var/tmp", help="with room for the models  [default: /var/tmp]")
    parser.add_argument("--json", type=Path, help="a file for the figures of every run")
    given = parser.parse_args()
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if device == "cuda" else machine()
    runs = f"medians of {given.runs} runs of {given.updates - WARM_UP} updates"
    print(f"{where}; {given.shape}, {given.dtype}; {runs}.\n", flush=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        make(Path(folder), given.shape)
        # Features are made once, for both phases and all runs.
        made = side_of("features", Path(folder), PHASES[0], 1, device, given.dtype)["made"]
        print(HEAD, flush=True)
        for phase in PHASES:
            found = list(measure(Path(folder), phase, given.updates, given.runs, device, given.dtype))
            faster = max(found[:2], key=lambda row: median(row.speed))
            for row in found:
                print(row.line(faster), flush=True)
            rows += found
    for phase in PHASES:
        theirs, *ours = (row.losses for row in rows if row.phase == phase)
        apart = max(abs(a - b) / b for each in ours for a, b in zip(each, theirs, strict=True))
        print(f"\nPhase {phase}: losses of all updates differ from those of transformers by at most {apart:.1e}.")
    print(f"\n{made}, before all runs.")
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def measure(folder: Path, phase: int, updates: int, runs: int, device: str, dtype: str) -> Iterator[Row]:
    """A row for each side; they take turns."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(runs):
        for side in SIDES:
            found[side].append(side_of(side, folder, phase, updates, device, dtype))
    tokens = found["mmsimple"][0]["tokens"]
    for side, results in found.items():
        speed = [sum(tokens[WARM_UP:]) / (each["times"][-1] - each["times"][WARM_UP - 1]) for each in results]
        yield Row(phase, side, speed, results[0]["losses"], max(each["memory"] for each in results))


def side_of(side: str, folder: Path, phase: int, updates: int, device: str, dtype: str) -> dict[str, Any]:
    """One run of a side, in a process of its own."""
    command = [sys.executable, SCRIPT, side, str(folder), str(phase), str(updates), device, dtype]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"failed with {done.returncode}: {' '.join(command)}\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
