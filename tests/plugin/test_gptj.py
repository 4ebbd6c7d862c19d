from __future__ import annotations

from pathlib import Path
from typing import Any

from mmconvert import registry, testing

(GPTJ,) = (each for each in registry.converters() if each.model == "gptj")
SMALL: dict[str, Any] = {
    "model_type": "gptj",
    "vocab_size": 99,
    "n_positions": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "rotary_dim": 4,
}


def test_the_tables_hold() -> None:
    testing.check(GPTJ, [SMALL, {**SMALL, "n_inner": 96, "activation_function": "relu"}])


def test_random_checkpoints_come_back(tmp_path: Path) -> None:
    testing.round_trip(GPTJ, SMALL, tmp_path)
