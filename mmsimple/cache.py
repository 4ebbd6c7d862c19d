"""Keys and values that a decoder has computed already, so that a further token costs one token and not the whole text.

Shape letters: B samples, K key/value heads, S positions, D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor


class LayerCache:
    """Of one layer. Memory for `max_length` positions is taken once, when the first of them come."""

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        self.length = 0
        self._kept: tuple[Tensor, Tensor] | None = None

    def extended(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep keys and values [B, K, S, D] of the positions that follow; all that there are now, [B, K, length, D]."""
        if self._kept is None:
            samples, heads, _, size = keys.shape
            shape = samples, heads, self.max_length, size
            self._kept = torch.empty(shape, dtype=keys.dtype, device=keys.device), values.new_empty(shape)
        start, self.length = self.length, self.length + keys.shape[2]
        for kept, new in zip(self._kept, (keys, values), strict=True):
            kept[:, :, start : self.length] = new
        all_keys, all_values = (kept[:, :, : self.length] for kept in self._kept)
        return all_keys, all_values


class KeyValueCache:
    """Of all layers of a decoder, for texts of at most `max_length` positions."""

    def __init__(self, num_layers: int, max_length: int) -> None:
        self.layers = [LayerCache(max_length) for _ in range(num_layers)]

    @property
    def length(self) -> int:
        """How many positions the decoder has seen."""
        return self.layers[-1].length
