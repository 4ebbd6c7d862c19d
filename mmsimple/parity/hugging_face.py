"""Hugging Face and LLaVA checkpoints as transformers computes them: which of its classes runs which model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmconvert.api import Checkpoint
from mmconvert.forward import Inputs, Model
from mmsimple.parity.components import Decoder, Tower
from mmsimple.parity.llava import run_llava
from mmsimple.parity.llava_hf import run_llava_hf
from mmsimple.parity.loading import load_decoder, load_headless, load_tower, load_tower_with_projection, part_of
from mmsimple.quiet import in_its_words


class InItsWords(Model):
    """A model of transformers; what it raises when it computes is told in one line that names the checkpoint."""

    def __init__(self, model: Model, path: Path) -> None:
        self.model, self.path, self.sizes = model, path, model.sizes

    def outputs(self, inputs: Inputs) -> Mapping[str, NDArray[np.float32]]:
        with in_its_words(self.path, "transformers does not compute it"):
            return self.model.outputs(inputs)


def run_hugging_face(checkpoint: Checkpoint) -> Model:
    """The model of a checkpoint in format `hf`, `llava` or `llava-hf`.

    Raises InputRefused, see `mmsimple.parity.loading`.
    """
    return InItsWords(_model(checkpoint), checkpoint.path)


def _model(checkpoint: Checkpoint) -> Model:
    model = checkpoint.node.model
    if checkpoint.node.format == "llava-hf":
        return run_llava_hf(checkpoint)
    if model in ("llava", "mmsimple-llava"):
        return run_llava(checkpoint)
    part = part_of(checkpoint)
    if model == "clip-vit" and "visual_projection.weight" in checkpoint.tensors:
        return Tower(load_tower_with_projection(part))
    if model in ("clip-vit", "clip-encoder"):
        return Tower(load_tower(part))
    if model == "llama-headless":
        return Decoder(load_headless(part))
    return Decoder(load_decoder(part, mistral=model == "mistral"))
