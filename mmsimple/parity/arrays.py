"""What both architectures share: arrays into torch and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def ids(array: NDArray[Any]) -> Tensor:
    """Token ids or positions."""
    return torch.from_numpy(np.array(array, dtype=np.int64))


def pixels(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32))


def arrays(outputs: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.float().numpy() for name, tensor in outputs.items()}
