"""CS checkpoints through the models of mmsimple, in float32 on the CPU.

Shape letters: B samples, S positions, H hidden, I image slots of a sample, N images, P tokens of an image, E encoder's
hidden size.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmconvert.api import Checkpoint
from mmconvert.forward import Inputs, Model, Sizes
from mmsimple.checkpoint import load, open_cs
from mmsimple.config import LlamaConfig, ModelConfig, ViTConfig
from mmsimple.llama import LlamaModel
from mmsimple.load import build
from mmsimple.model import Batch, MultimodalModel, image_tokens
from mmsimple.parity.arrays import arrays, ids, pixels
from mmsimple.vit import ViTClassifier, ViTModel


def run_cs(checkpoint: Checkpoint) -> Model:
    """The model of a CS checkpoint. Raises InputRefused, see `mmsimple.checkpoint.load`."""
    module = load(open_cs(checkpoint), _build_whole, dtype=torch.float32)
    if isinstance(module, MultimodalModel):
        return Multimodal(module)
    if isinstance(module, LlamaModel):
        return Decoder(module)
    assert isinstance(module, ViTClassifier | ViTModel)
    return Encoder(module)


def _build_whole(config: ModelConfig) -> nn.Module:
    """An encoder by itself runs all its layers: which of them a multimodal model reads is said nowhere else."""
    return build(replace(config, image_layer_idx=None) if isinstance(config, ViTConfig) else config)


def _text_sizes(config: LlamaConfig) -> Sizes:
    longest, window = config.max_position_embeddings, config.attention_sliding_window_length
    return Sizes(config.vocab_size, max_length=longest, sliding_window=window)


def _image_size(config: ViTConfig) -> tuple[int, int, int]:
    return (config.num_channels, *config.image_size)


class Decoder(Model):
    """A decoder by itself. Its last hidden states are given too: a decoder without a head has nothing else."""

    def __init__(self, module: LlamaModel) -> None:
        self.module = module
        self.sizes = _text_sizes(module.config)

    @torch.inference_mode()
    def outputs(self, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
        assert inputs.input_ids is not None
        tokens = ids(inputs.input_ids)
        hidden_states = self.module.decode(self.module.embed(tokens), _modality(tokens))
        return arrays({"text logits": self.module.lm_head(hidden_states), "text hidden states": hidden_states})


class Encoder(Model):
    """An encoder by itself, or with CLIP's projection."""

    def __init__(self, module: ViTClassifier | ViTModel) -> None:
        self.module = module
        encoder = module.vit_model if isinstance(module, ViTClassifier) else module
        self.sizes = Sizes(image=_image_size(encoder.config))

    @torch.inference_mode()
    def outputs(self, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
        assert inputs.pixel_values is not None
        images = pixels(inputs.pixel_values)
        if isinstance(self.module, ViTModel):
            return arrays({"image features": self.module(images)})
        return arrays({"image features": self.module.vit_model(images), "image embeds": self.module(images)})


class Multimodal(Model):
    """The whole model: its decoder alone, its image stack alone, and both together."""

    def __init__(self, module: MultimodalModel) -> None:
        self.module = module
        config = module.config
        self.sizes = replace(
            _text_sizes(config.text_model),
            image=_image_size(config.image_models[0].encoder),
            image_tokens=image_tokens(config),
        )

    @torch.inference_mode()
    def outputs(self, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
        found: dict[str, Tensor] = {}
        if inputs.input_ids is not None:
            tokens = ids(inputs.input_ids)
            found["text logits"] = self.module.text_model(tokens, _modality(tokens))
        if inputs.pixel_values is not None:
            images = pixels(inputs.pixel_values)
            found |= self._features(images)
            found["projected image features"] = self.module.image_model(images)
        if inputs.joined_ids is not None and inputs.image_positions is not None and inputs.joined_pixels is not None:
            tokens, positions = ids(inputs.joined_ids), ids(inputs.image_positions)
            batch = Batch(tokens, pixels(inputs.joined_pixels), positions, _modality(tokens, positions))
            found["logits"] = self.module(batch)
        return arrays(found)

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        """What all encoders give before any projection, one after the other, if that fits together."""
        config = self.module.config
        if len({each.encoder.hidden_size for each in config.image_models}) > 1:
            return {}
        first = 1 if config.select == "patch" else 0
        encoders = (next(each.children()) for each in self.module.image_model.image_model_list)
        return {"image features": torch.cat([encoder(images)[:, first:] for encoder in encoders], dim=1)}


def _modality(tokens: Tensor, positions: Tensor | None = None) -> Tensor:
    """[B, S]: 1 at the positions [B, I, P] of images; one past the end is in none."""
    room = torch.zeros(tokens.shape[0], tokens.shape[1] + 1, dtype=torch.int64)
    if positions is not None:
        room.scatter_(1, positions.flatten(1), 1)
    return room[:, :-1]
