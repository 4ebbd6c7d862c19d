"""What transformers makes of a folder: which models lie there, and of which parts.

llava-hf, transformers' own LLaVA, keeps a tower, a projector and a decoder in one checkpoint. Its names have been
spelled in three ways; here they are read in all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from mmconvert.diagnosis import Patient
from mmconvert.sources import TensorRef
from mmconvert.spec import Config

from .. import clip
from ..llama import is_llama
from ..llava_names import is_llava_text
from ..mistral import is_mistral
from .traps_parts import LLAMA, MISTRAL, TOWER, Part, below, integer

# What stands before a part's names: in files, and in memory or in files that keep the names of memory.
DECODER = ("language_model.model.", "model.language_model.")
HEAD = ("language_model.lm_head.", "lm_head.")
PROJECTOR = ("multi_modal_projector.", "model.multi_modal_projector.")
TOWER_NAMES = (
    *("vision_tower.vision_model.", "model.vision_tower.vision_model."),
    *("vision_tower.", "model.vision_tower."),
)
# The tower of a config that describes none.
CLIP_L = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
IMAGE_TOKEN = 32000


def is_joined(config: Config) -> bool:
    """Whether a config is llava-hf's; LLaVA's source has used the same model_type."""
    return config.get("model_type") == "llava" and not is_llava_text(config)


class Joined:
    """A llava-hf folder."""

    def __init__(self, folder: Patient) -> None:
        self.folder = folder
        self.config = folder.config
        self.where = folder.at("config.json")

    @cached_property
    def decoder(self) -> Part | None:
        config = self._inner("text_config", {})
        kinds = {"llama": LLAMA, "mistral": MISTRAL}
        kind = kinds.get(str(config.get("model_type", "llama")))
        tensors = {f"model.{key}": ref for key, ref in below(self.folder.tensors, *DECODER).items()}
        tensors |= {f"lm_head.{key}": ref for key, ref in below(self.folder.tensors, *HEAD).items()}
        if kind is None:
            return None
        return Part(f"{self.where}: text_config", config, tensors, "language_model.", kind)

    @cached_property
    def tower(self) -> Part | None:
        config = self._inner("vision_config", CLIP_L)
        if config.get("model_type", "clip_vision_model") != "clip_vision_model":
            return None
        tensors = below(self.folder.tensors, *TOWER_NAMES)
        return Part(f"{self.where}: vision_config", config, tensors, TOWER_NAMES[0], TOWER)

    def _inner(self, name: str, default: Config) -> Config:
        value = self.config.get(name, default)
        return value if isinstance(value, Mapping) else default

    @cached_property
    def projector(self) -> Mapping[str, TensorRef]:
        return below(self.folder.tensors, *PROJECTOR)

    @cached_property
    def others(self) -> list[str]:
        """Tensors of no part."""
        known = (*DECODER, *HEAD, *PROJECTOR, *TOWER_NAMES)
        return [key for key in self.folder.tensors if not key.startswith(known)]

    @property
    def feature_layers(self) -> list[int] | None:
        """The layers whose output is taken, one beside the other; None where that is no list of integers."""
        said = self.config.get("vision_feature_layer", -2)
        layers = said if isinstance(said, list) else [said]
        return layers if all(isinstance(each, int) for each in layers) else None

    @property
    def strategy(self) -> object:
        return self.config.get("vision_feature_select_strategy", "default")

    @property
    def image_token(self) -> int | None:
        name = "image_token_id" if "image_token_id" in self.config else "image_token_index"
        return integer({name: IMAGE_TOKEN, **self.config}, name)

    @property
    def processor(self) -> Mapping[str, Any]:
        return self.folder.document("processor_config.json")


class Models:
    """A folder as transformers sees it: one model, or a folder of several."""

    def __init__(self, patient: Patient) -> None:
        self.patient = patient

    @cached_property
    def folders(self) -> list[Patient]:
        if "config.json" in self.patient.names:
            return [self.patient]
        found = [each for each in self.patient.folders.values() if "config.json" in each.names]
        return found or [self.patient]

    @cached_property
    def joined(self) -> list[Joined]:
        return [Joined(each) for each in self.folders if is_joined(each.config)]

    @property
    def decoder_folders(self) -> Iterator[Patient]:
        return (each for each in self.folders if is_llama(each.config) or is_mistral(each.config))

    @property
    def tower_folders(self) -> Iterator[Patient]:
        return (each for each in self.folders if clip.is_clip(each.config))

    @cached_property
    def decoders(self) -> list[Part]:
        alone = [
            Part(each.at("config.json"), each.config, each.tensors, "", MISTRAL if is_mistral(each.config) else LLAMA)
            for each in self.decoder_folders
        ]
        return alone + [each.decoder for each in self.joined if each.decoder is not None]

    @cached_property
    def towers(self) -> list[Part]:
        prefix = "vision_model."
        alone = [
            Part(each.at("config.json"), each.config, below(each.tensors, prefix, ""), prefix, TOWER)
            for each in self.tower_folders
        ]
        return alone + [each.tower for each in self.joined if each.tower is not None]
