"""What two architectures compute from one model: ours for CS checkpoints, transformers' for those it was made from.

`mmconvert verify A B --forward` finds the functions here by their entry points and compares what they give. Torch and
transformers are not imported before there is a checkpoint to run.
"""

from __future__ import annotations

from mmconvert.api import Checkpoint
from mmconvert.forward import Model
from mmsimple.sections import READERS


def cerebras(checkpoint: Checkpoint) -> Model | None:
    """A CS checkpoint as mmsimple computes it; None for other formats, and for models that mmsimple has not.

    Raises InputRefused for a checkpoint that is broken, incomplete or holds what mmsimple does not support.
    """
    if checkpoint.node.format != "cs" or checkpoint.node.model not in READERS:
        return None
    from mmsimple.parity.own import run_cs

    return run_cs(checkpoint)


def transformers(checkpoint: Checkpoint) -> Model | None:
    """A Hugging Face or LLaVA checkpoint as transformers loads and computes it; None where it is neither.

    Raises InputRefused for what transformers does not load, in its own words, and for weights that it misses, by name.
    """
    if checkpoint.node.format not in ("hf", "llava", "llava-hf") or checkpoint.node.model not in READERS:
        return None
    from mmsimple.parity.hugging_face import run_hugging_face

    return run_hugging_face(checkpoint)
