"""Any model that a checkpoint may hold, as the module that computes it: a decoder or an encoder alone too."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from mmconvert.api import NO_HINTS, Hints
from mmsimple.checkpoint import load, open_checkpoint
from mmsimple.config import ClassifierConfig, LlamaConfig, ModelConfig, MultimodalConfig, ViTConfig
from mmsimple.llama import LlamaModel
from mmsimple.model import MultimodalModel
from mmsimple.vit import ViTClassifier, ViTModel


def build(config: ModelConfig) -> nn.Module:
    """The module of a config, with fresh weights; under `torch.device("meta")` with none."""
    match config:
        case MultimodalConfig():
            return MultimodalModel(config)
        case LlamaConfig():
            return LlamaModel(config)
        case ClassifierConfig():
            return ViTClassifier(config)
        case ViTConfig():
            return ViTModel(config)


def load_model(
    path: str | Path,
    *,
    hints: Hints = NO_HINTS,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """The model of a checkpoint in any format that mmconvert reads; see `MultimodalModel.from_checkpoint`."""
    return load(open_checkpoint(Path(path), hints), build, dtype=dtype, device=device)
