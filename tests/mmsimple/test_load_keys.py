"""Parameters have the names and shapes that mmconvert demands of a CS checkpoint, and need no memory to have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from mmconvert import api
from mmsimple import sections
from mmsimple.config import (
    ClassifierConfig,
    FeedForwardConfig,
    ImageModelConfig,
    LlamaConfig,
    ModelConfig,
    MultimodalConfig,
)
from mmsimple.load import build
from tests.mmsimple.small import DECODER, MULTIMODAL, VIT

Shapes = dict[str, tuple[int, ...]]

GOLDEN = Path(__file__).parents[1] / "golden" / "forward_mmsimple" / "config_accepted.yaml"
ONE_BY_ONE = FeedForwardConfig(32, (24, 32), ("gelu", None), (0.0, 0.0), use_bias=True)
BARE = replace(DECODER, use_projection_bias_in_attention=False, use_ffn_bias_in_attention=False, use_ffn_bias=False)
# Patches have no bias of their own in any tower that mmconvert's tables describe.
TOWER = replace(VIT, use_embed_proj_bias=False)
# 70 billion parameters: nobody who makes them in earnest gets on with the tests.
LARGE = LlamaConfig(32000, 8192, 80, 64, 8, 28672, 128, 4096)
CONFIGS: dict[str, ModelConfig] = {
    "mmsimple": replace(MULTIMODAL, image_models=(ImageModelConfig(TOWER),)),
    "two-encoders": replace(
        MULTIMODAL,
        image_models=(
            ImageModelConfig(replace(TOWER, image_layer_idx=None), ONE_BY_ONE),
            ImageModelConfig(replace(TOWER, patch_size=(7, 7)), ONE_BY_ONE),
        ),
    ),
    "llama": BARE,
    "llama-with-biases": DECODER,
    "llama-multi-head": replace(DECODER, num_kv_heads=4),
    "mistral": replace(BARE, attention_sliding_window_length=6),
    "clip-vit": ClassifierConfig(replace(TOWER, image_layer_idx=None), 24, use_bias_in_output=False),
    "clip-encoder": TOWER,
}


def built(config: ModelConfig) -> Shapes:
    with torch.device("meta"):
        module = build(config)
    assert all(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def demanded(model: str, file: Path) -> Shapes:
    return {name: each.pair.shape for name, each in api.keys(model, file, to="cs").tensors.items()}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_names_and_shapes_are_those_that_are_demanded(config: ModelConfig, tmp_path: Path) -> None:
    model, section = sections.write(config)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"model": section}))
    assert built(config) == demanded(model, file)


def test_names_and_shapes_of_a_recorded_config_are_those_that_are_demanded() -> None:
    config = sections.read_file(GOLDEN)
    assert isinstance(config, MultimodalConfig)
    assert built(config) == demanded("mmsimple-llava", GOLDEN)


def test_a_tied_decoder_has_the_name_of_its_head_too(tmp_path: Path) -> None:
    """A checkpoint may leave it out, and one that has it is read."""
    config = replace(BARE, share_embedding_weights=True)
    model, section = sections.write(config)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"model": section}))
    shapes = built(config)
    assert set(shapes) - {"lm_head.weight"} == set(demanded(model, file)) - {"lm_head.weight"}
    assert shapes["lm_head.weight"] == shapes["embedding_layer.word_embeddings.weight"]


def test_a_model_of_any_size_is_described_without_memory() -> None:
    shapes = built(LARGE)
    assert shapes["transformer_decoder.layers.79.self_attn.proj_k_dense_layer.weight"] == (1024, 8192)
