"""Hugging Face and LLaVA checkpoints as transformers computes them: which of its classes runs which model."""

from __future__ import annotations

from collections.abc import Mapping

from mmconvert.api import Checkpoint
from mmconvert.dtypes import DType
from mmconvert.forward import Model
from mmsimple.parity.components import Decoder, Tower
from mmsimple.parity.llava import run_llava
from mmsimple.parity.loading import load_decoder, load_headless, load_tower, load_tower_with_projection, part_of


def run_hugging_face(checkpoint: Checkpoint, rounding: Mapping[str, DType]) -> Model:
    """The model of a checkpoint in format `hf` or `llava`. Raises InputRefused, see `mmsimple.parity.loading`."""
    model = checkpoint.node.model
    if model in ("llava", "mmsimple-llava"):
        return run_llava(checkpoint, rounding)
    part = part_of(checkpoint)
    if model == "clip-vit" and "visual_projection.weight" in checkpoint.tensors:
        return Tower(load_tower_with_projection(part), rounding)
    if model in ("clip-vit", "clip-encoder"):
        return Tower(load_tower(part), rounding)
    if model == "llama-headless":
        return Decoder(load_headless(part), rounding)
    return Decoder(load_decoder(part, mistral=model == "mistral"), rounding)
