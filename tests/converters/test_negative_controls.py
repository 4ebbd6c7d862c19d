"""The proofs can fail: without the rotary permutation, or without the CLS roll, they do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mmconvert import api
from mmconvert.rows import Index, RowRule

if TYPE_CHECKING:
    from tests.converters.conftest import Reader, Workshop

ROTARY = ("rotary rows", "llama_gqa", ("proj_q_dense_layer", "proj_k_dense_layer"))
ROLL = ("class-token row", "clip_proj", ("position_embeddings",))


@pytest.mark.parametrize(("words", "name", "moved"), [ROTARY, ROLL], ids=["rotary", "roll"])
def test_a_row_rule_left_out_shows_in_exactly_its_tensors(
    words: str,
    name: str,
    moved: tuple[str, ...],
    golden: Path,
    workshop: Workshop,
    facts: Reader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = golden / "inputs" / name
    intact = RowRule.for_rows

    def for_rows(rule: RowRule, rows: int, sizes: Mapping[str, int]) -> tuple[Index, str]:
        return (range(rows), "left out") if rule.words.startswith(words) else intact(rule, rows, sizes)

    with monkeypatch.context() as patch:
        patch.setattr(RowRule, "for_rows", for_rows)
        unmoved = workshop.convert(source, "cs-2.4")
    recorded = json.loads((golden / "cases" / f"{name}__hf_to_cs-2.4.json").read_text("utf-8"))["tensors"]
    differing = {key for key, (_, _, digest) in facts(unmoved).items() if digest != recorded[key]["sha256"]}
    expected = {key for key in recorded if any(part in key for part in moved)}
    assert expected
    assert differing == expected
    problems = api.verify(source, unmoved).problems
    assert {problem.partition(":")[0] for problem in problems} == expected
