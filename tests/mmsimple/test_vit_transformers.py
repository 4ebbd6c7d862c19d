"""CLIP towers of transformers, carried across by a conversion, give the same hidden states in mmsimple."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmsimple.vit import ViTModel
from tests.mmsimple.hugging_face import load_tower, random_tower, to_cs
from tests.mmsimple.small import BFLOAT16, FLOAT32, apart, random

LAYERS = 3
IMAGES = random(2, 3, 28, 28)
# CS index, and the index into transformers' hidden states, in which the embeddings come first.
INDICES = [(-3, -3), (-2, -2), (-1, -1), (0, 1), (1, 2), (2, 3)]
SHAPES: dict[str, dict[str, Any]] = {
    "quick_gelu": {"hidden_act": "quick_gelu"},
    "gelu": {"hidden_act": "gelu"},
    "heads-of-12": {"hidden_size": 48},
    "heads-of-20": {"hidden_size": 80, "hidden_act": "gelu"},
    "smaller-patches": {"patch_size": 7},
    "one-channel": {"num_channels": 1},
}


def hidden_states(theirs: Any, images: torch.Tensor) -> Any:
    with torch.inference_mode():
        return theirs(images, output_hidden_states=True)


def normed(theirs: Any, hidden_state: torch.Tensor) -> torch.Tensor:
    """transformers normalises the class token alone."""
    with torch.inference_mode():
        out: torch.Tensor = theirs.post_layernorm(hidden_state)
    return out


def features(ours: ViTModel, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = ours(images)
    return out


@pytest.mark.parametrize("fields", SHAPES.values(), ids=SHAPES.keys())
def test_towers_of_every_kind_agree_at_the_layer_before_the_last(fields: dict[str, Any], tmp_path: Path) -> None:
    theirs = random_tower(**fields)
    images = IMAGES[:, : theirs.config.num_channels]
    ours = load_tower(to_cs(theirs, tmp_path, model="clip-encoder"), -2)
    assert apart(features(ours, images), hidden_states(theirs, images).hidden_states[-2]) < FLOAT32


def test_every_layer_is_the_one_that_its_index_names(tmp_path: Path) -> None:
    theirs = random_tower()
    cs = to_cs(theirs, tmp_path, model="clip-encoder")
    expected = hidden_states(theirs, IMAGES).hidden_states
    for index, their_index in INDICES:
        assert apart(features(load_tower(cs, index), IMAGES), expected[their_index]) < FLOAT32, index


def test_without_an_index_all_layers_run_and_the_final_norm(tmp_path: Path) -> None:
    theirs = random_tower()
    ours = features(load_tower(to_cs(theirs, tmp_path, model="clip-encoder"), None), IMAGES)
    expected = hidden_states(theirs, IMAGES)
    assert apart(ours, normed(theirs, expected.last_hidden_state)) < FLOAT32
    assert apart(ours[:, 0], expected.pooler_output) < FLOAT32


@pytest.mark.parametrize("index", [-2, None])
def test_both_in_bfloat16_differ_by_roundings_alone(index: int | None, tmp_path: Path) -> None:
    theirs = random_tower().to(torch.bfloat16)
    ours = load_tower(to_cs(theirs, tmp_path, model="clip-encoder"), index)
    images = IMAGES.to(torch.bfloat16)
    states = hidden_states(theirs, images).hidden_states
    expected = states[index] if index is not None else normed(theirs, states[-1])
    found = features(ours, images)
    assert (found.dtype, expected.dtype) == (torch.bfloat16, torch.bfloat16)
    assert apart(found, expected) < BFLOAT16


def test_positions_that_were_not_rolled_show_at_once(tmp_path: Path) -> None:
    theirs = random_tower()
    ours = load_tower(to_cs(theirs, tmp_path, model="clip-encoder"), -2)
    table = ours.embedding_layer.position_embeddings.weight
    with torch.no_grad():
        table.copy_(table.roll(1, dims=0))
    assert apart(features(ours, IMAGES), hidden_states(theirs, IMAGES).hidden_states[-2]) > 1000 * FLOAT32
