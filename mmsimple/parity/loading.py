"""Models in transformers' own classes, by its own loading: from the folder, without the network, and without a word.

What transformers takes lightly, weights that are missing or too many, is refused here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import (
    CLIPConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from mmconvert.api import Checkpoint
from mmconvert.documents import LISTING_LIMITS, read_json
from mmconvert.errors import InputRefused
from mmconvert.sources import TensorRef
from mmsimple.checkpoint import read_tensor
from mmsimple.quiet import in_its_words

P = TypeVar("P", bound=PreTrainedModel)
# What a folder may hold that is not the part's.
BESIDE_TOWER = ("text_model.*", "text_projection.weight", "visual_projection.weight", "logit_scale", "*position_ids")
BESIDE_DECODER = ("*rotary_emb.inv_freq", "model.mm_projector.*", "model.vision_tower.*")
BESIDE_LLAVA = ("*position_ids", "*rotary_emb.inv_freq")
# Fields by which transformers chooses a class, which is chosen here.
IDENTITY = ("model_type", "architectures", "auto_map")


@dataclass(frozen=True)
class Part:
    """One folder of a checkpoint, with its config; `tensors` stand in for those of its files, where there are any."""

    folder: Path
    config: Mapping[str, Any]
    is_safetensors: bool = True
    tensors: Mapping[str, TensorRef] | None = None


def part_of(checkpoint: Checkpoint, name: str = "") -> Part:
    """The folder of a part, or of the only one. Raises InputRefused for files that transformers would not read."""
    prefix = f"{name}/" if name else ""
    folder = checkpoint.sidecars[f"{prefix}config.json"].parent
    config = checkpoint.config[name] if name else checkpoint.config
    refs = {key.removeprefix(prefix): ref for key, ref in checkpoint.tensors.items() if key.startswith(prefix)}
    files = {ref.path for ref in refs.values() if ref.path is not None}
    if any(ref.path is None for ref in refs.values()):
        return Part(folder, config, tensors=refs)
    names = {file.name for file in files if file.parent == folder}
    is_safetensors = all(file.suffix == ".safetensors" for file in files)
    standard = "model.safetensors" if is_safetensors else "pytorch_model.bin"
    if len(names) < len(files) or (names != {standard} and names != _indexed(folder / f"{standard}.index.json")):
        raise InputRefused(f"{min(files)}: transformers loads whole folders, and finds other files in {folder}")
    return Part(folder, config, is_safetensors)


def _indexed(index: Path) -> set[str]:
    """The files that an index leads to; none where there is no index."""
    return set(read_json(index, LISTING_LIMITS)["weight_map"].values()) if index.is_file() else set()


def load_tower(part: Part) -> CLIPVisionModel:
    """A CLIP tower, also out of a whole CLIPModel."""
    return _load(CLIPVisionModel, part, _tower_config(part), BESIDE_TOWER)


def load_tower_with_projection(part: Part) -> CLIPVisionModelWithProjection:
    return _load(CLIPVisionModelWithProjection, part, _tower_config(part), BESIDE_TOWER)


def load_headless(part: Part) -> LlamaModel:
    return _load(LlamaModel, part, _decoder_config(part, LlamaConfig), BESIDE_DECODER)


def load_decoder(part: Part, *, mistral: bool) -> LlamaForCausalLM | MistralForCausalLM:
    """A decoder with its head; of a LLaVA's text part, what is a decoder's."""
    if mistral:
        return _load(MistralForCausalLM, part, _decoder_config(part, MistralConfig), BESIDE_DECODER)
    return _load(LlamaForCausalLM, part, _decoder_config(part, LlamaConfig), BESIDE_DECODER)


def load_llava(part: Part) -> LlavaForConditionalGeneration:
    """A whole llava-hf."""
    with in_its_words(part.folder):
        config = LlavaConfig.from_dict({name: value for name, value in part.config.items() if name not in IDENTITY})
    return _load(LlavaForConditionalGeneration, part, config, BESIDE_LLAVA)


def _tower_config(part: Part) -> PreTrainedConfig:
    with in_its_words(part.folder):
        if part.config.get("model_type") != "clip":
            return CLIPVisionConfig.from_dict(dict(part.config))
        whole: PreTrainedConfig = CLIPConfig.from_dict(dict(part.config))
        vision: PreTrainedConfig = whole.vision_config
        vision.projection_dim = whole.projection_dim
        return vision


def _decoder_config(part: Part, kind: type[PreTrainedConfig]) -> PreTrainedConfig:
    with in_its_words(part.folder):
        return kind.from_dict({name: value for name, value in part.config.items() if name not in IDENTITY})


def _load(kind: type[P], part: Part, config: PreTrainedConfig, beside: Iterable[str]) -> P:
    # A config may ask for outputs of another form.
    config.return_dict = True
    given = None if part.tensors is None else {name: read_tensor(ref) for name, ref in part.tensors.items()}
    with in_its_words(part.folder):
        loaded: Any = kind.from_pretrained(
            part.folder if given is None else None,
            config=config,
            state_dict=given,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=part.is_safetensors,
            # With them ignored, it says which they are.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    module, info = loaded
    unexpected = [key for key in info["unexpected_keys"] if not any(fnmatchcase(key, each) for each in beside)]
    mismatched = [key for key, *_ in info["mismatched_keys"]]
    for keys, problem in (
        (mismatched, "has another shape than its config says"),
        (info["missing_keys"], "is missing"),
        (unexpected, f"is no tensor of {kind.__name__}"),
    ):
        if keys:
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            raise InputRefused(f"{part.folder}: {min(keys)} {problem}{more}")
    whole: P = module
    return whole
