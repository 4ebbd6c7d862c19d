"""What must be true of every converter, for the tests of whoever writes one: a table is a claim, and this tries it.

`check(converter, configs)` runs all `CHECKS`. The configs are side a's, as read from disk: the more of what a family
does they show (tied or not, with biases or without), the more is tried. Each check raises AssertionError with the row,
key or field at fault. `round_trip` takes a random checkpoint through the whole engine; `matches_golden` compares a
folder with what a reference made. No test framework is needed, nor torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmconvert.converter import Converter
from mmconvert.spec import Config
from mmconvert.testing.check import Check
from mmconvert.testing.checkpoints import Recorded, matches_golden, round_trip, write_checkpoint
from mmconvert.testing.configs import (
    configs_are_recognised,
    configs_come_back,
    every_release_says_the_same,
    no_two_values_become_one,
    sections_are_valid,
)
from mmconvert.testing.tensors import (
    captures_agree,
    no_name_stands_for_two_tensors,
    rows_are_permuted,
    twins_repeat_what_is_there,
)

__all__ = [
    "CHECKS",
    "Check",
    "Recorded",
    "captures_agree",
    "check",
    "configs_are_recognised",
    "configs_come_back",
    "every_release_says_the_same",
    "matches_golden",
    "no_name_stands_for_two_tensors",
    "no_two_values_become_one",
    "round_trip",
    "rows_are_permuted",
    "sections_are_valid",
    "twins_repeat_what_is_there",
    "write_checkpoint",
]

CHECKS: tuple[Check, ...] = (
    captures_agree,
    no_name_stands_for_two_tensors,
    twins_repeat_what_is_there,
    rows_are_permuted,
    no_two_values_become_one,
    configs_come_back,
    sections_are_valid,
    every_release_says_the_same,
    configs_are_recognised,
)


def check(converter: Converter, configs: Sequence[Config]) -> None:
    """Run every check on a converter with some of side a's configs. Raises AssertionError, naming what is at fault."""
    if not configs:
        raise AssertionError(f"{converter.model}: no config is given, so there is nothing to check")
    for each in CHECKS:
        each(converter, configs)
