"""A plan as people read it."""

from __future__ import annotations

from mmconvert.remark import Remark
from mmconvert.report.conversions import grouped


def test_what_is_dropped_for_one_reason_is_one_line() -> None:
    state = [Remark(f"optimizer.{number}", "optimizer state is not converted") for number in range(1200)]
    remarks = [state[0], Remark("rng", "not a part of the model"), *state[1:]]
    assert grouped(remarks) == [
        "optimizer.0 and 1,199 more: optimizer state is not converted",
        "rng: not a part of the model",
    ]
