"""The model section of a Cerebras (CS) params file, into the descriptions of `mmsimple.config` and back.

Files of every release, flat or under `trainer:`, come in the newest spelling from mmconvert. What a field may be,
`supported.py` says; the other files have a part each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmconvert import api
from mmconvert.api import NO_HINTS, Hints
from mmconvert.errors import InputRefused
from mmsimple.config import ClassifierConfig, LlamaConfig, ModelConfig, MultimodalConfig, ViTConfig
from mmsimple.sections.decoder import read_decoder, write_decoder
from mmsimple.sections.encoder import read_classifier, read_encoder, write_classifier, write_encoder
from mmsimple.sections.multimodal import read_llava, read_multimodal, write_multimodal
from mmsimple.sections.supported import LLAMA, MISTRAL, Section

READERS: dict[str, Callable[[Section, str], ModelConfig]] = {
    "mmsimple-llava": read_multimodal,
    "llava": read_llava,
    "llama": lambda section, where: read_decoder(section, where, "", LLAMA),
    "llama-headless": lambda section, where: read_decoder(section, where, "", LLAMA),
    "mistral": lambda section, where: read_decoder(section, where, "", MISTRAL),
    "clip-vit": read_classifier,
    "clip-encoder": lambda section, where: read_encoder(section, where, ""),
}


def read_file(path: Path, hints: Hints = NO_HINTS) -> ModelConfig:
    """The model that a params file of any release describes, or the one beside a CS checkpoint.

    Raises UsageError if there is nothing, InputRefused, naming file and field, for what is no CS model or is not
    supported.
    """
    found = api.recognise(path, hints=hints)
    if found.node.format != "cs":
        raise InputRefused(f"{path}: is a {found.node} checkpoint; `mmconvert convert` makes a CS one of it")
    return read(found.node.model, found.config, found.config_from)


def read(model: str, section: Section, where: str) -> ModelConfig:
    """What a section of a model, under mmconvert's name for it, describes; `where` is the file to name to a user.

    Raises InputRefused, naming file and field, for a field that does not exist, with the nearest one that does; for a
    value that is not supported; and for parts that do not fit together.
    """
    if model not in READERS:
        raise InputRefused(f"{where}: mmsimple has no {model}; it has {', '.join(READERS)}")
    return READERS[model](section, where)


def write(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """The model under mmconvert's name, and its section in the newest spelling: what `read` reads back."""
    match config:
        case MultimodalConfig():
            return "mmsimple-llava", write_multimodal(config)
        case LlamaConfig():
            # A CS llama has no window of its own; that is what a mistral is.
            name = "llama" if config.attention_sliding_window_length is None else "mistral"
            return name, write_decoder(config, name)
        case ClassifierConfig():
            return "clip-vit", write_classifier(config)
        case ViTConfig():
            return "clip-encoder", write_encoder(config, "ViTModel")
