"""Models in transformers' own classes, by its own loading: from the folder, without the network, and without a word.

What transformers takes lightly, weights that are missing or too many, is refused here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from logging import CRITICAL
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from mmconvert.api import Checkpoint
from mmconvert.errors import InputRefused

P = TypeVar("P", bound=PreTrainedModel)
LONGEST = 200
# The names that transformers looks for in a folder.
STANDARD_FILES = {"model.safetensors", "pytorch_model.bin"}
# What a folder may hold that is not the part's.
BESIDE_TOWER = ("text_model.*", "text_projection.weight", "visual_projection.weight", "logit_scale", "*position_ids")
BESIDE_DECODER = ("*rotary_emb.inv_freq", "model.mm_projector.*", "model.vision_tower.*")
# Fields by which transformers chooses a class, which is chosen here.
IDENTITY = ("model_type", "architectures", "auto_map")


@dataclass(frozen=True)
class Part:
    """One folder of a checkpoint, with its config and the kind of its files."""

    folder: Path
    config: Mapping[str, Any]
    is_safetensors: bool


def part_of(checkpoint: Checkpoint, name: str = "") -> Part:
    """The folder of a part, or of the only one. Raises InputRefused for files that transformers would not read."""
    prefix = f"{name}/" if name else ""
    folder = checkpoint.sidecars[f"{prefix}config.json"].parent
    config = checkpoint.config[name] if name else checkpoint.config
    files = {ref.path for key, ref in checkpoint.tensors.items() if key.startswith(prefix) and ref.path is not None}
    names = {file.name for file in files if file.parent == folder}
    if len(names) < len(files) or not (names < STANDARD_FILES or _is_indexed(folder, names)):
        raise InputRefused(f"{min(files)}: transformers loads whole folders, and finds other files in {folder}")
    return Part(folder, config, all(name.endswith(".safetensors") for name in names))


def _is_indexed(folder: Path, names: set[str]) -> bool:
    """Whether these are the files that an index of the folder leads to."""
    indices = (folder / f"{name}.index.json" for name in STANDARD_FILES)
    maps = (json.loads(index.read_text("utf-8"))["weight_map"] for index in indices if index.is_file())
    return any(set(each.values()) == names for each in maps)


def load_tower(part: Part, tensors: Mapping[str, Tensor] | None = None) -> CLIPVisionModel:
    """A CLIP tower, also out of a whole CLIPModel; `tensors` stand in for the folder's own."""
    return _load(CLIPVisionModel, part, _tower_config(part), BESIDE_TOWER, tensors)


def load_tower_with_projection(part: Part) -> CLIPVisionModelWithProjection:
    return _load(CLIPVisionModelWithProjection, part, _tower_config(part), BESIDE_TOWER)


def load_headless(part: Part) -> LlamaModel:
    return _load(LlamaModel, part, _decoder_config(part, LlamaConfig), BESIDE_DECODER)


def load_decoder(part: Part, *, mistral: bool) -> LlamaForCausalLM | MistralForCausalLM:
    """A decoder with its head; of a LLaVA's text part, what is a decoder's."""
    if mistral:
        return _load(MistralForCausalLM, part, _decoder_config(part, MistralConfig), BESIDE_DECODER)
    return _load(LlamaForCausalLM, part, _decoder_config(part, LlamaConfig), BESIDE_DECODER)


def _tower_config(part: Part) -> PreTrainedConfig:
    with _in_its_words(part.folder):
        if part.config.get("model_type") != "clip":
            return CLIPVisionConfig.from_dict(dict(part.config))
        whole: PreTrainedConfig = CLIPConfig.from_dict(dict(part.config))
        vision: PreTrainedConfig = whole.vision_config
        vision.projection_dim = whole.projection_dim
        return vision


def _decoder_config(part: Part, kind: type[PreTrainedConfig]) -> PreTrainedConfig:
    with _in_its_words(part.folder):
        return kind.from_dict({name: value for name, value in part.config.items() if name not in IDENTITY})


def _load(
    kind: type[P],
    part: Part,
    config: PreTrainedConfig,
    beside: Iterable[str],
    tensors: Mapping[str, Tensor] | None = None,
) -> P:
    with _in_its_words(part.folder):
        loaded: Any = kind.from_pretrained(
            part.folder if tensors is None else None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
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
    whole: P = module.eval()
    return whole


@contextmanager
def _in_its_words(folder: Path) -> Iterator[None]:
    """Keep transformers quiet, and make whatever it raises one line that names the folder."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        words = ": ".join(lines)[:LONGEST] or type(error).__name__
        raise InputRefused(f"{folder}: transformers does not load it: {words}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
