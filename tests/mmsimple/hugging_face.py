"""Random models of transformers' own classes, and the same models in mmsimple, by way of a conversion.

transformers takes seconds to import: only what runs needs it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mmconvert import Hints, api
from mmsimple.checkpoint import load, open_checkpoint
from mmsimple.config import ViTConfig
from mmsimple.vit import ViTModel
from tests.conftest import CLIP, LLAMA, LLAVA
from tests.mmsimple.small import drawn

# What a class chooses for itself, and nobody else may.
IDENTITY = ("architectures", "model_type")
DECODER = {name: value for name, value in LLAMA.items() if name not in IDENTITY}
TOWER = {name: value for name, value in CLIP.items() if name not in IDENTITY}
# The id that transformers' LLaVA has at image positions; no text has it.
IMAGE_ID = DECODER["vocab_size"] - 1


def plain(fields: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Fields for a model whose attention is written out in Python."""
    return {**fields, **more, "attn_implementation": "eager"}


def random_llama(**fields: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return drawn(LlamaForCausalLM(LlamaConfig(**plain(DECODER, fields))))


def random_mistral(**fields: Any) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    return drawn(MistralForCausalLM(MistralConfig(**plain(DECODER, fields))))


def random_tower(**fields: Any) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return drawn(CLIPVisionModel(CLIPVisionConfig(**plain(TOWER, fields))))


def random_llava(layer: int = -2, strategy: str = "default") -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    parts = {"vision_config": CLIPVisionConfig(**TOWER), "text_config": LlamaConfig(**DECODER)}
    selected = {"vision_feature_layer": layer, "vision_feature_select_strategy": strategy}
    fields = {**selected, "image_token_index": IMAGE_ID}
    return drawn(LlavaForConditionalGeneration(LlavaConfig(**plain(parts, fields))))


def to_cs(theirs: Any, folder: Path, model: str | None = None) -> Path:
    """A model as a CS checkpoint; `model` says what it is to be, where it could be several."""
    theirs.save_pretrained(folder / "hf")
    api.convert(folder / "hf", folder / "cs", "cs", hints=Hints(model=model), fsync=False)
    return folder / "cs"


def llava_to_cs(model: Any, folder: Path) -> Path:
    """transformers' LLaVA in the two folders of the original, with the names that it has there, and as CS."""
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    tower.save_pretrained(folder / "llava" / "image_model")
    tensors = {f"model.{name}": tensor for name, tensor in model.model.language_model.state_dict().items()}
    tensors["lm_head.weight"] = model.lm_head.weight
    for number, linear in ((0, projector.linear_1), (2, projector.linear_2)):
        tensors |= {f"model.mm_projector.{number}.{name}": tensor for name, tensor in linear.state_dict().items()}
    text = folder / "llava" / "text_model"
    text.mkdir()
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, text / "model.safetensors")
    selected = {
        "mm_vision_select_layer": model.config.vision_feature_layer,
        "mm_vision_select_feature": {"default": "patch"}.get(model.config.vision_feature_select_strategy, "cls_patch"),
    }
    (text / "config.json").write_text(json.dumps({**LLAMA, **LLAVA, **selected}))
    api.convert(folder / "llava", folder / "cs", "cs", fsync=False)
    return folder / "cs"


def load_tower(path: Path, image_layer_idx: int | None) -> ViTModel:
    """A CS encoder that runs up to a layer of one's choice."""

    def build(config: object) -> ViTModel:
        assert isinstance(config, ViTConfig)
        return ViTModel(replace(config, image_layer_idx=image_layer_idx))

    return load(open_checkpoint(path), build)


def in_halves(rows: Tensor, heads: int) -> Tensor:
    """Rows of q or k with the pairs of each head apart again: what the conversion put side by side."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)


def undo_rotary_rows(decoder: nn.Module) -> None:
    """Put the rows of q and k back into the order that Hugging Face keeps them in."""
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if "proj_q" in name or "proj_k" in name:
                head_dim = DECODER["hidden_size"] // DECODER["num_attention_heads"]
                parameter.copy_(in_halves(parameter, len(parameter) // head_dim))
