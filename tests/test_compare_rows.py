"""Vocabularies of which one has more rows: those of tokens are compared, and what fills the others where we made it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mmconvert
from mmconvert import manifest

Tensors = dict[str, torch.Tensor]
HEAD, EMBEDDING = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
# The tokens of the small LLaMA, and the rows that llava-hf has for them and its own.
OWN, ROWS = 101, 128


@pytest.fixture
def joined(llava: Path, tmp_path: Path) -> Path:
    """`llava` as llava-hf, by us."""
    mmconvert.convert(llava, tmp_path / "joined", "llava-hf", fsync=False)
    return tmp_path / "joined"


@pytest.fixture
def of_others(joined: Path) -> Path:
    """The same, as another program would have left it."""
    (joined / manifest.NAME).unlink()
    return joined


def change(folder: Path, edit: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file({key: each.contiguous() for key, each in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


def resize(folder: Path, rows: int) -> None:
    """Give the vocabulary another number of rows, in the config too."""
    change(folder, lambda tensors: tensors.update({key: tensors[key][:rows] for key in (HEAD, EMBEDDING)}))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = rows
    (folder / "config.json").write_text(json.dumps(config))


def test_rows_that_we_made_are_compared(llava: Path, joined: Path) -> None:
    change(joined, lambda tensors: tensors[HEAD][OWN].add_(1))
    (problem,) = mmconvert.verify(llava, joined).problems
    assert problem.startswith(f"{HEAD}: differs")


def test_rows_that_others_made_are_not_and_it_is_told(llava: Path, of_others: Path) -> None:
    change(of_others, lambda tensors: tensors[HEAD][OWN:].add_(1))
    found = mmconvert.verify(llava, of_others)
    assert found.problems == []
    told = f"rows {OWN} to {ROWS - 1} are not A's, so not compared"
    assert [note for note in found.notes if "not compared" in note] == [f"{key}: {told}" for key in (EMBEDDING, HEAD)]


def test_the_last_row_that_is_the_source_s_is_compared_whoever_made_the_others(llava: Path, of_others: Path) -> None:
    change(of_others, lambda tensors: tensors[HEAD][OWN - 1].add_(1))
    (problem,) = mmconvert.verify(llava, of_others).problems
    assert problem.startswith(f"{HEAD}: differs")


def test_others_may_have_one_row_more(llava: Path, of_others: Path) -> None:
    resize(of_others, OWN + 1)
    found = mmconvert.verify(llava, of_others)
    assert found.problems == []
    assert f"{HEAD}: rows {OWN} to {OWN} are not A's, so not compared" in found.notes


@pytest.mark.parametrize(("shape", "rows"), [((ROWS - 1, 48), ROWS - 1), ((ROWS + 1, 48), ROWS + 1), ((), 0)])
def test_rows_that_are_not_as_many_as_its_own_config_says_are_a_problem(
    llava: Path, of_others: Path, shape: tuple[int, ...], rows: int
) -> None:
    change(of_others, lambda tensors: tensors.update({HEAD: torch.zeros(shape, dtype=torch.bfloat16)}))
    assert f"{HEAD}: {rows} rows, and B's config demands {ROWS}" in mmconvert.verify(llava, of_others).problems


def test_another_tensor_of_another_shape_is_no_matter_of_rows(llava: Path, of_others: Path) -> None:
    norm = "language_model.model.norm.weight"
    change(of_others, lambda tensors: tensors.update({norm: tensors[norm][:-1]}))
    (problem,) = mmconvert.verify(llava, of_others).problems
    assert norm in problem
    assert "demands" not in problem


def test_a_vocabulary_that_is_not_there_is_missing(llava: Path, of_others: Path) -> None:
    change(of_others, lambda tensors: tensors.pop(HEAD))
    assert mmconvert.verify(llava, of_others).problems == [f"{HEAD}: missing in B"]
