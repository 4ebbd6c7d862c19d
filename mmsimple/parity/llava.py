"""LLaVA's two folders, joined as its source repository joins them, around transformers' tower and decoder.

A hidden state of the tower goes through the projector, and stands in place of the embeddings at image positions. Shape
letters: B samples, S positions, H hidden, N images, P tokens of an image, E encoder's hidden size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPVisionModel, LlamaForCausalLM, MistralForCausalLM

from mmconvert.api import Checkpoint
from mmconvert.errors import InputRefused
from mmconvert.forward import Inputs, Model
from mmconvert.sources import TensorRef
from mmsimple.checkpoint import fill
from mmsimple.parity.arrays import arrays, ids, pixels
from mmsimple.parity.components import image_size, text_sizes
from mmsimple.parity.loading import Part, load_decoder, load_tower, part_of

IMAGE, TEXT = "image_model", "text_model"
TOWER_IN_TEXT = f"{TEXT}/model.vision_tower.vision_tower."
IN_TEXT_FILE = f"{TEXT}/model."
PROJECTOR = "mm_projector"


@dataclass(frozen=True)
class Selection:
    """Which hidden state of the tower is read (0 are the embeddings), and whether its class token too."""

    layer: int
    with_class_token: bool


def run_llava(checkpoint: Checkpoint) -> Model:
    """A LLaVA of two folders, with or without a projector. Raises InputRefused for a part that is no such thing."""
    text = part_of(checkpoint, TEXT)
    selection = _selection(text)
    tower = load_tower(_tower(checkpoint, text))
    decoder = load_decoder(text, mistral=text.config.get("model_type") in ("mistral", "llava_mistral"))
    projector = _projector(checkpoint, text, tower.config.hidden_size, decoder.config.hidden_size)
    return Llava(tower, projector, decoder, selection)


def _selection(text: Part) -> Selection:
    # A plain decoder's config says nothing of the tower; every LLaVA 1.5 reads the patches of the last layer but one.
    layer = text.config.get("mm_vision_select_layer", -2)
    mode = text.config.get("mm_vision_select_feature", "patch")
    return Selection(layer, with_class_token=mode == "cls_patch")


def _tower(checkpoint: Checkpoint, text: Part) -> Part:
    """The tower's own folder; or what the text file has of it, where training has changed it and the config says so."""
    image = part_of(checkpoint, IMAGE)
    if not text.config.get("unfreeze_mm_vision_tower"):
        return image
    found = {
        key.removeprefix(TOWER_IN_TEXT): ref for key, ref in checkpoint.tensors.items() if key.startswith(TOWER_IN_TEXT)
    }
    if not found:
        raise InputRefused(f"{text.folder}: unfreeze_mm_vision_tower is true, but no model.vision_tower.* is here")
    return replace(image, tensors=found)


def _projector(checkpoint: Checkpoint, text: Part, inputs: int, hidden: int) -> nn.Module | None:
    """The layers of `mm_projector`; None where the checkpoint has none yet."""
    tensors = {
        key.removeprefix(IN_TEXT_FILE): ref
        for key, ref in checkpoint.tensors.items()
        if key.startswith(f"{IN_TEXT_FILE}{PROJECTOR}.")
    }
    if not tensors:
        return None
    kind = str(text.config.get("mm_projector_type") or _kind(text, tensors))
    layers = re.fullmatch(r"mlp(\d{1,2})x_gelu", kind)
    with torch.device("meta"):
        projector: nn.Module = nn.Linear(inputs, hidden)
        if layers is not None:
            later = [each for _ in range(int(layers[1]) - 1) for each in (nn.GELU(), nn.Linear(hidden, hidden))]
            projector = nn.Sequential(projector, *later)
        elif kind != "linear":
            raise InputRefused(f"{text.folder}: mm_projector_type {kind!r} is none that can be run: linear, mlp2x_gelu")
        named = nn.ModuleDict({PROJECTOR: projector})
    fill(named, tensors, str(text.folder), dtype=torch.float32)
    return named[PROJECTOR]


def _kind(text: Part, tensors: Mapping[str, TensorRef]) -> str:
    """The projector's type where the config is silent: LLaVA's default, or what a plain decoder's folder holds."""
    layers = sum(key.endswith(".weight") for key in tensors)
    is_llava = str(text.config.get("model_type")).startswith("llava")
    return "linear" if is_llava or f"{PROJECTOR}.weight" in tensors else f"mlp{layers}x_gelu"


class Llava(Model):
    """The whole model: its decoder alone, its tower and projector alone, and all together."""

    def __init__(
        self,
        tower: CLIPVisionModel,
        projector: nn.Module | None,
        decoder: LlamaForCausalLM | MistralForCausalLM,
        selection: Selection,
    ) -> None:
        self.tower, self.projector, self.decoder, self.selection = tower, projector, decoder, selection
        patches = int(tower.embeddings.num_patches)
        self.sizes = replace(
            text_sizes(decoder.config),
            image=image_size(tower.config),
            image_tokens=patches + selection.with_class_token,
        )

    @torch.inference_mode()
    def outputs(self, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
        found: dict[str, Tensor] = {}
        if inputs.input_ids is not None:
            found["text logits"] = self.decoder(input_ids=ids(inputs.input_ids), use_cache=False).logits
        if inputs.pixel_values is not None:
            features = self._features(pixels(inputs.pixel_values))
            found["image features"] = features
            if self.projector is not None:
                found["projected image features"] = self.projector(features)
        if self.projector is not None and inputs.joined_ids is not None:
            embeddings = self._joined(inputs)
            found["logits"] = self.decoder(inputs_embeds=embeddings, use_cache=False).logits
        return arrays(found)

    def _features(self, images: Tensor) -> Tensor:
        """[N, C, height, width] -> [N, P, E]."""
        given = self.tower(pixel_values=images, output_hidden_states=True)
        features: Tensor = given.hidden_states[self.selection.layer]
        return features if self.selection.with_class_token else features[:, 1:]

    def _joined(self, inputs: Inputs) -> Tensor:
        """The embeddings [B, S, H] of the text, with image features at their positions."""
        assert self.projector is not None
        assert inputs.joined_ids is not None
        embeddings: Tensor = self.decoder.get_input_embeddings()(ids(inputs.joined_ids))
        if inputs.image_positions is None or inputs.joined_pixels is None:
            return embeddings
        length = embeddings.shape[1]
        positions, images = ids(inputs.image_positions), pixels(inputs.joined_pixels)
        for sample, slot in np.ndindex(*positions.shape[:2]):
            places = positions[sample, slot]
            if int(places.max()) < length:
                (embeddings[sample, places],) = self.projector(self._features(images[sample, slot][None]))
        return embeddings
