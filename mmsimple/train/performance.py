"""Layers that compute faster, or keep less: the same model, with the same parameters under the same names."""

from __future__ import annotations

from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from mmconvert.errors import UsageError
from mmsimple.llama import DecoderLayer
from mmsimple.model import MultimodalModel
from mmsimple.train.config import Performance
from mmsimple.vit import EncoderLayer

PATH = "trainer.init.performance"


def tune(model: MultimodalModel, performance: Performance, device: torch.device) -> None:
    """Do to a model's layers what a run asks for; parameters that train are set apart already.

    Raises UsageError where layers are to be compiled and torch.compile does not work.
    """
    if performance.compile:
        _check_compiler(device)
    for layer in (module for module in model.modules() if isinstance(module, EncoderLayer | DecoderLayer)):
        forward = layer.forward
        if performance.compile:
            # Layer by layer, for they are alike: what is compiled for one serves them all. Lengths of texts and numbers
            # of pictures change from batch to batch. Random numbers are torch's own, so that dropout is the same.
            forward = torch.compile(forward, dynamic=True, options={"fallback_random": True})
        if performance.activation_checkpointing:
            # Nothing is computed twice where no gradient passes through.
            forward = partial(checkpoint, forward, use_reentrant=False)
        # The module stays what it is, for a wrapper would give its parameters other names.
        layer.forward = forward  # type: ignore[method-assign]


def _check_compiler(device: torch.device) -> None:
    """Compile something small, to know before anything is trained."""
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except Exception as error:  # it may lack a compiler, a GPU's toolkit, or a version of Python
        words = str(error).strip().partition("\n")[0]
        raise UsageError(f"{PATH}.compile: torch.compile does not work here: {words:.200}") from error
