"""The numbers that a model computes are the same on both sides of a conversion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

if TYPE_CHECKING:
    from tests.converters.conftest import Workshop

Array = np.ndarray[Any, Any]


def logits(folder: Path) -> torch.Tensor:
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = torch.arange(40).reshape(2, 20) * 7 % 320
    with torch.no_grad():
        found: torch.Tensor = model(tokens).logits
    return found


@pytest.mark.parametrize("name", ["llama_gqa", "llama_tied", "llama31"])
def test_a_round_trip_gives_identical_logits(golden: Path, workshop: Workshop, name: str) -> None:
    source = golden / "inputs" / name
    back = workshop.convert(workshop.convert(source, "cs-2.10"), "hf")
    assert torch.equal(logits(back), logits(source))


def test_query_and_key_rows_are_neighbouring_pairs_in_cs(workshop: Workshop) -> None:
    draft = workshop.draft("inputs/llama_gqa")
    attention = "model.layers.0.self_attn."

    def number(rows: int) -> Array:
        return np.repeat(np.arange(rows, dtype="float32")[:, None], 48, axis=1)

    draft.change_tensors(
        lambda tensors: tensors.update(
            {f"{attention}q_proj.weight": number(48), f"{attention}k_proj.weight": number(24)}
        )
    )
    written = workshop.edit(workshop.convert(draft.path, "cs-2.10")).tensors()
    head = [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]
    for name, heads in (("q", 4), ("k", 2)):
        rows = written[f"transformer_decoder.layers.0.self_attn.proj_{name}_dense_layer.weight"][:, 0]
        assert rows.tolist() == [12 * number + row for number in range(heads) for row in head]


def test_attention_scores_agree_under_either_rotation(workshop: Workshop) -> None:
    """Hugging Face rotates the halves of a head, CS neighbouring rows: q·k is the same at every pair of positions."""
    draft = workshop.draft("inputs/llama_gqa")
    theirs = draft.tensors()
    ours = workshop.edit(workshop.convert(draft.path, "cs-2.10")).tensors()
    hidden = np.random.default_rng(0).standard_normal((20, 48))
    theta = 500000.0 ** (-np.arange(6) / 6)
    turn = np.exp(1j * np.arange(20)[:, None] * theta)

    def halves(rows: Array) -> Array:
        turned: Array = (rows[:, :6] + 1j * rows[:, 6:]) * turn
        return turned

    def pairs(rows: Array) -> Array:
        turned: Array = (rows[:, 0::2] + 1j * rows[:, 1::2]) * turn
        return turned

    def scores(tensors: dict[str, Array], query: str, key: str, rotate: Any) -> Array:
        q, k = (rotate(hidden @ tensors[name][:12].T.astype("float64")) for name in (query, key))
        product: Array = (q @ k.conj().T).real
        return product

    before = scores(theirs, "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight", halves)
    layer = "transformer_decoder.layers.0.self_attn."
    after = scores(ours, f"{layer}proj_q_dense_layer.weight", f"{layer}proj_k_dense_layer.weight", pairs)
    np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-12)
