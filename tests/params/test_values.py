"""Values that the two sides of a move spell differently."""

from __future__ import annotations

from typing import Any

import pytest

from mmconvert.params.values import ARGUMENTS, AS_IT_IS, SWITCH, SWITCHED_ON, Spelling
from mmconvert.paths import ABSENT


@pytest.mark.parametrize(
    ("spelling", "older", "newer"),
    [
        (AS_IT_IS, [1, {"a": None}], [1, {"a": None}]),
        (AS_IT_IS, None, None),
        (SWITCH, True, {}),
        (SWITCH, False, None),
        (SWITCHED_ON, True, {}),
        (ARGUMENTS, True, {}),
        (ARGUMENTS, {"outdir": "x"}, {"outdir": "x"}),
    ],
)
def test_a_value_goes_up_and_comes_down(spelling: Spelling, older: Any, newer: Any) -> None:
    assert spelling.up(older) == newer
    assert spelling.down(newer) is older or spelling.down(newer) == older


@pytest.mark.parametrize("value", [1, 0, "true", {}])
def test_a_switch_is_a_truth_value_and_nothing_that_equals_one(value: object) -> None:
    assert SWITCH.up(value) is ABSENT


def test_what_is_no_switch_cannot_be_said() -> None:
    assert SWITCH.down({"patience": 3}) is ABSENT
    assert SWITCHED_ON.up(False) is ABSENT
    assert SWITCHED_ON.down(None) is ABSENT
