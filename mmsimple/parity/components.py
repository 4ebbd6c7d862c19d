"""A tower or a decoder by itself, as transformers computes it.

Shape letters: B samples, S positions, H hidden, V vocabulary, N images, P patches, E encoder's hidden size.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    LlamaForCausalLM,
    LlamaModel,
    MistralForCausalLM,
    PreTrainedConfig,
)

from mmconvert.forward import Inputs, Model, Sizes
from mmsimple.parity.arrays import arrays, ids, pixels


def image_size(config: PreTrainedConfig) -> tuple[int, int, int]:
    """(channels, height, width)."""
    return config.num_channels, config.image_size, config.image_size


def text_sizes(config: PreTrainedConfig) -> Sizes:
    """What a decoder may be given, and what it must be given to show all that its config says."""
    window = config.sliding_window if config.model_type == "mistral" else None
    return Sizes(
        config.vocab_size,
        max_length=config.max_position_embeddings,
        needed_length=_past_switch(config),
        sliding_window=window,
    )


def _past_switch(config: PreTrainedConfig) -> int:
    """longrope has two lists of factors: transformers takes the long ones for long inputs, CS for a long model."""
    rope = config.rope_parameters
    if rope["rope_type"] != "longrope":
        return 0
    original: int = rope["original_max_position_embeddings"]
    return original + 1 if config.max_position_embeddings > original else 0


class Tower(Model):
    """A CLIP tower, with its projection where it has one."""

    def __init__(self, module: CLIPVisionModel | CLIPVisionModelWithProjection) -> None:
        self.module = module
        self.sizes = Sizes(image=image_size(module.config))

    @torch.inference_mode()
    def outputs(self, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
        """All tokens after the final norm, which transformers applies to the class token alone."""
        assert inputs.pixel_values is not None
        given = self.module(pixel_values=pixels(inputs.pixel_values))
        if isinstance(self.module, CLIPVisionModel):
            return arrays({"image features": self.module.post_layernorm(given.last_hidden_state)})
        features = self.module.vision_model.post_layernorm(given.last_hidden_state)
        return arrays({"image features": features, "image embeds": given.image_embeds})


class Decoder(Model):
    """A decoder with its head, or without."""

    def __init__(self, module: LlamaForCausalLM | MistralForCausalLM | LlamaModel) -> None:
        self.module = module
        self.sizes = text_sizes(module.config)

    @torch.inference_mode()
    def outputs(self, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
        """Logits; of a decoder without a head its last hidden states, and logits where its embedding is the head."""
        assert inputs.input_ids is not None
        given = self.module(input_ids=ids(inputs.input_ids), use_cache=False)
        if not isinstance(self.module, LlamaModel):
            return arrays({"text logits": given.logits})
        found = {"text hidden states": given.last_hidden_state}
        if self.module.config.tie_word_embeddings:
            found["text logits"] = given.last_hidden_state @ self.module.embed_tokens.weight.T
        return arrays(found)
