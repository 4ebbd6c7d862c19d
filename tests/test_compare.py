"""What has just been written is read back before it takes its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mmconvert
from mmconvert import Options, Plan, api
from mmconvert.compare import check_written
from mmconvert.errors import VerificationFailed

KEY = "vit_model.encoder.transformer_encoder.norm.bias"


@pytest.fixture
def written(clip: Path, tmp_path: Path) -> tuple[Plan, Path]:
    """A plan that was carried out, and its weights file."""
    plan = mmconvert.plan(clip, tmp_path / "cs", "cs", options=Options(container="safetensors"))
    api.run(plan, fsync=False)
    return plan, tmp_path / "cs" / "model.safetensors"


@pytest.mark.parametrize("level", ["keys", "bytes", "none"])
def test_what_was_written_as_planned_passes(written: tuple[Plan, Path], level: str) -> None:
    plan, _ = written
    check_written(plan.out, plan, level)


CHANGES: Mapping[str, tuple[dict[str, torch.Tensor], str]] = {
    "another shape": ({KEY: torch.zeros(31)}, f"{KEY} does not read back as it was planned"),
    "another type": ({KEY: torch.zeros(32, dtype=torch.float16)}, f"{KEY} does not read back as it was planned"),
    "a tensor too many": ({"stray": torch.zeros(1)}, "holds stray, which was not planned"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_header_that_differs_from_the_plan_is_found(written: tuple[Plan, Path], name: str) -> None:
    plan, file = written
    changed, message = CHANGES[name]
    save_file({**load_file(file), **changed}, file)
    with pytest.raises(VerificationFailed, match=message):
        check_written(plan.out, plan, "keys")
    check_written(plan.out, plan, "none")


def test_bytes_that_differ_are_found_when_bytes_are_checked(written: tuple[Plan, Path]) -> None:
    plan, file = written
    save_file({**load_file(file), KEY: torch.zeros(32)}, file)
    check_written(plan.out, plan, "keys")
    with pytest.raises(VerificationFailed, match=f"{KEY} does not read back as it was written"):
        check_written(plan.out, plan, "bytes")


def test_a_run_that_fails_its_check_leaves_nothing(clip: Path, tmp_path: Path) -> None:
    plan = mmconvert.plan(clip, tmp_path / "cs", "cs")
    (output,) = plan.outputs
    first, *rest = output.tensors
    # The file says one thing of this tensor and the plan another.
    misplanned = replace(output, tensors=(replace(first, shape=(1, *first.shape)), *rest))
    with pytest.raises(VerificationFailed):
        api.run(replace(plan, outputs=(misplanned,)), fsync=False)
    assert list(tmp_path.iterdir()) == []
