"""The element types of a model's parts, which need not be the same.

A checkpoint may keep its encoder in bfloat16 and its decoder in float32, or norms and head of a decoder in a wider type
than the rest. Within a part, linear layers are of one type; what goes from one part to the next is cast to its type.
"""

from __future__ import annotations

import torch
from torch import nn

from mmsimple.workload import Half

HALVES: dict[Half, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
LINEAR = (nn.Linear, nn.Conv2d)


def computed_in(part: nn.Module) -> torch.dtype | None:
    """The element type of a part's linear layers; None where it has none, and takes whatever it gets."""
    return next((module.weight.dtype for module in part.modules() if isinstance(module, LINEAR)), None)
