"""llava-hf, as transformers' own `LlavaForConditionalGeneration` computes it.

Shape letters: B samples, S positions, V the language model's own vocabulary, N images, P tokens of an image, E the
encoder's hidden size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from mmconvert.api import Checkpoint
from mmconvert.forward import Inputs, Model
from mmsimple.parity.arrays import arrays, ids, pixels
from mmsimple.parity.components import image_size, text_sizes
from mmsimple.parity.loading import load_llava, part_of


def run_llava_hf(checkpoint: Checkpoint) -> Model:
    """The model of a checkpoint in format `llava-hf`. Raises InputRefused, see `mmsimple.parity.loading`."""
    return LlavaHF(load_llava(part_of(checkpoint)))


class LlavaHF(Model):
    """The whole model: its decoder alone, its tower and projector alone, and all together.

    The tokens that were added to the vocabulary, `<image>` the first of them, are no outputs of the language model: its
    logits end before them.
    """

    def __init__(self, module: LlavaForConditionalGeneration) -> None:
        self.module = module
        self.image_token: int = module.config.image_token_index
        text: Any = module.config.text_config
        vision: Any = module.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        self.sizes = replace(
            text_sizes(text),
            vocab_size=self.image_token,
            image=image_size(vision),
            image_tokens=patches + self._with_class_token,
        )

    @property
    def _with_class_token(self) -> bool:
        return bool(self.module.config.vision_feature_select_strategy == "full")

    @torch.inference_mode()
    def outputs(self, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
        found: dict[str, Tensor] = {}
        if inputs.input_ids is not None:
            found["text logits"] = self._logits(ids(inputs.input_ids))
        if inputs.pixel_values is not None:
            features = self._features(pixels(inputs.pixel_values))
            found["image features"] = features
            found["projected image features"] = self.module.model.multi_modal_projector(features)
        if inputs.joined_ids is not None:
            samples = range(len(inputs.joined_ids))
            found["logits"] = torch.cat([self._joined(inputs, sample) for sample in samples])
        return arrays(found)

    def _logits(self, tokens: Tensor, images: Tensor | None = None) -> Tensor:
        """[B, S] -> [B, S, V]."""
        given = self.module(input_ids=tokens, pixel_values=images, use_cache=False)
        logits: Tensor = given.logits
        return logits[..., : self.image_token]

    def _features(self, images: Tensor) -> Tensor:
        """[N, C, height, width] -> [N, P, E]."""
        given = self.module.model.vision_tower(pixel_values=images, output_hidden_states=True)
        layer: Any = self.module.config.vision_feature_layer
        features: Tensor = given.hidden_states[layer]
        return features if self._with_class_token else features[:, 1:]

    def _joined(self, inputs: Inputs, sample: int) -> Tensor:
        """The logits [1, S, V] of one sample: `<image>` stands where its images do, in their order."""
        assert inputs.joined_ids is not None
        tokens = ids(inputs.joined_ids[sample])[None]
        if inputs.image_positions is None or inputs.joined_pixels is None:
            return self._logits(tokens)
        positions, images = ids(inputs.image_positions[sample]), pixels(inputs.joined_pixels[sample])
        # A slot whose positions lie past the text holds no image.
        held = [slot for slot in range(len(positions)) if int(positions[slot].max()) < tokens.shape[1]]
        for slot in held:
            tokens[0, positions[slot]] = self.image_token
        return self._logits(tokens, images[held] if held else None)
