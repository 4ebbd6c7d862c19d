"""Decoders of transformers, carried across by a conversion, give the same logits in mmsimple."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mmsimple.llama import LlamaModel
from mmsimple.load import load_model
from tests.mmsimple.hugging_face import random_llama, random_mistral, to_cs, undo_rotary_rows
from tests.mmsimple.small import BFLOAT16, FLOAT32, apart, token_ids

LENGTH = 24

STRETCHED = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
BANDS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
FACTORS = {"short_factor": [1.0] * 6, "long_factor": [1.0, 1.2, 1.5, 2.0, 3.0, 4.0]}
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "llama3": {"rope_type": "llama3", **STRETCHED, **BANDS},
    "yarn": {"rope_type": "yarn", **STRETCHED},
    "yarn-with-its-own-betas": {"rope_type": "yarn", **STRETCHED, "beta_fast": 0.5, "beta_slow": 0.1},
    "yarn-with-an-attention-factor": {"rope_type": "yarn", **STRETCHED, "attention_factor": 1.3},
    "longrope-past-its-switch": {"rope_type": "longrope", **STRETCHED, **FACTORS},
}
SHAPES: dict[str, dict[str, Any]] = {
    "multi-head": {"num_key_value_heads": 4},
    "grouped": {"num_key_value_heads": 2},
    "one-key-head": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "attention-bias": {"attention_bias": True},
    "mlp-bias": {"mlp_bias": True},
    "heads-of-20": {"hidden_size": 80},
    "heads-of-96": {"hidden_size": 192, "num_attention_heads": 2, "num_key_value_heads": 1},
    "another-theta-and-epsilon": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        "rms_norm_eps": 1e-2,
    },
}
CONFIGS = SHAPES | {name: {"rope_parameters": scaling} for name, scaling in SCALINGS.items()}


def logits(model: nn.Module, length: int = LENGTH) -> torch.Tensor:
    with torch.inference_mode():
        out = model(token_ids(2, length))
    found: torch.Tensor = out if isinstance(out, torch.Tensor) else out.logits
    return found


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_llama_gives_the_same_logits(fields: dict[str, Any], tmp_path: Path) -> None:
    theirs = random_llama(**fields)
    ours = load_model(to_cs(theirs, tmp_path))
    assert apart(logits(ours), logits(theirs)) < FLOAT32


@pytest.mark.parametrize("window", [6, LENGTH, None])
def test_a_mistral_gives_the_same_logits_past_its_window(window: int | None, tmp_path: Path) -> None:
    theirs = random_mistral(sliding_window=window)
    ours = load_model(to_cs(theirs, tmp_path))
    assert isinstance(ours, LlamaModel)
    assert ours.config.attention_sliding_window_length == window
    assert apart(logits(ours), logits(theirs)) < FLOAT32


@pytest.mark.parametrize("name", ["grouped", "attention-bias", "yarn-with-an-attention-factor"])
def test_both_in_bfloat16_differ_by_roundings_alone(name: str, tmp_path: Path) -> None:
    theirs = random_llama(**CONFIGS[name]).to(torch.bfloat16)
    ours = load_model(to_cs(theirs, tmp_path))
    found, expected = logits(ours), logits(theirs)
    assert (found.dtype, expected.dtype) == (torch.bfloat16, torch.bfloat16)
    assert apart(found, expected) < BFLOAT16


def test_a_mistral_in_bfloat16_differs_by_roundings_alone(tmp_path: Path) -> None:
    theirs = random_mistral(sliding_window=6).to(torch.bfloat16)
    assert apart(logits(load_model(to_cs(theirs, tmp_path))), logits(theirs)) < BFLOAT16


def test_rows_of_q_and_k_that_were_not_reordered_show_at_once(tmp_path: Path) -> None:
    theirs = random_llama()
    ours = load_model(to_cs(theirs, tmp_path))
    undo_rotary_rows(ours)
    assert apart(logits(ours), logits(theirs)) > 1000 * FLOAT32


def test_rows_that_were_not_reordered_show_in_bfloat16_too(tmp_path: Path) -> None:
    theirs = random_llama().to(torch.bfloat16)
    ours = load_model(to_cs(theirs, tmp_path))
    undo_rotary_rows(ours)
    assert apart(logits(ours), logits(theirs)) > 10 * BFLOAT16
