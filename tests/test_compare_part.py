"""A part that `--only` wrote, compared with the model that it came from: every tensor, and no more than these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mmconvert
from mmconvert import Options
from mmconvert.errors import UsageError

Tensors = dict[str, torch.Tensor]
BIAS = "model.mm_projector.0.bias"


@pytest.fixture
def projector(llava: Path, tmp_path: Path) -> Path:
    """The projector of `llava` alone."""
    options = Options(only="projector", container="safetensors")
    mmconvert.convert(llava, tmp_path / "out", "hf", options=options, fsync=False)
    return tmp_path / "out"


def change(folder: Path, edit: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "mm_projector.safetensors")
    edit(tensors)
    save_file(tensors, folder / "mm_projector.safetensors", {"format": "pt"})


def test_a_part_is_compared_whole(llava: Path, projector: Path) -> None:
    found = mmconvert.verify(llava, projector)
    assert (found.problems, found.tensors) == ([], 4)


def test_a_tensor_that_the_part_lacks_is_missing(llava: Path, projector: Path) -> None:
    change(projector, lambda tensors: tensors.pop(BIAS))
    assert mmconvert.verify(llava, projector).problems == [f"{BIAS}: missing in B"]


def test_a_tensor_that_is_no_part_s_is_too_many(llava: Path, projector: Path) -> None:
    change(projector, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(2)}))
    assert mmconvert.verify(llava, projector).problems == ["lm_head.weight: only in B"]


def test_a_tensor_of_another_name_is_missing_and_too_many(llava: Path, projector: Path) -> None:
    change(projector, lambda tensors: tensors.update({"mm_projector.0.bias": tensors.pop(BIAS)}))
    problems = mmconvert.verify(llava, projector).problems
    assert sorted(problems) == ["mm_projector.0.bias: only in B", f"{BIAS}: missing in B"]


def test_values_that_are_no_numbers_are_told_of_where_both_have_them(
    make_llava: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_llava(tmp_path / "source", edit=lambda tensors: tensors[BIAS].__setitem__(0, torch.nan))
    mmconvert.convert(source, tmp_path / "out", "hf", options=Options(only="projector"), fsync=False)
    found = mmconvert.verify(source, tmp_path / "out")
    assert found.problems == []
    assert f"NaN or infinite values, equal on both sides: {BIAS}" in found.notes


def test_a_part_without_weights_is_not_compared(llava: Path, projector: Path) -> None:
    (projector / "mm_projector.safetensors").unlink()
    with pytest.raises(UsageError, match="holds no weights to compare"):
        mmconvert.verify(llava, projector)
