"""What both architectures share: arrays into torch and back, weights rounded, and how long an input must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmconvert.dtypes import DType

# One token more than a window holds shows that it slides; a few more, that it does so in every layer.
MARGIN = 8


def ids(array: NDArray[Any]) -> Tensor:
    """Token ids or positions."""
    return torch.from_numpy(np.array(array, dtype=np.int64))


def pixels(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32))


def arrays(outputs: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.float().numpy() for name, tensor in outputs.items()}


def round_weights(part: str, module: nn.Module, rounding: Mapping[str, DType]) -> None:
    """Give every weight of a part the value that the part's element type would keep; it stays in float32."""
    dtype = rounding.get(part, rounding.get(""))
    if dtype is not None:
        for parameter in module.parameters():
            parameter.data.copy_(parameter.data.to(getattr(torch, dtype.name)))


def past(window: int | None) -> int:
    """How many tokens show that a sliding window slides; 0 where there is none."""
    return 0 if window is None else window + MARGIN
