"""Attention over many heads, for the encoder and the decoder alike.

Shape letters: B samples, S positions, H hidden, A heads, K key/value heads, D head size.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from mmsimple.cache import LayerCache
from mmsimple.rotary import Rotation, rotate


class Visibility(NamedTuple):
    """Which keys a query sees: all, all up to itself (`is_causal`), or those where `mask` [queries, keys] is true."""

    is_causal: bool = False
    mask: Tensor | None = None


EVERYTHING = Visibility()


class Attention(nn.Module):
    """Multi-head attention, and grouped-query attention where there are fewer key/value heads.

    Query head a reads key/value head a // (A / K). Scores are divided by sqrt(D), softmax is computed in float32.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        *,
        projection_bias: bool,
        output_bias: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.head_dim = hidden_size // num_heads
        self.is_grouped = num_kv_heads != num_heads
        self.dropout = dropout
        keys = num_kv_heads * self.head_dim
        self.proj_q_dense_layer = nn.Linear(hidden_size, hidden_size, projection_bias)
        self.proj_k_dense_layer = nn.Linear(hidden_size, keys, projection_bias)
        self.proj_v_dense_layer = nn.Linear(hidden_size, keys, projection_bias)
        self.proj_output_dense_layer = nn.Linear(hidden_size, hidden_size, output_bias)

    def forward(
        self,
        x: Tensor,
        visible: Visibility = EVERYTHING,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """[B, S, H] -> [B, S, H]; with a cache, `x` follows what is in it, and sees it too."""
        projections = (self.proj_q_dense_layer, self.proj_k_dense_layer, self.proj_v_dense_layer)
        q, k, v = (project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for project in projections)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)  # [B, A, S, D] and [B, K, S, D]
        if cache is not None:
            k, v = cache.extended(k, v)
        mixed = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=visible.mask,
            is_causal=visible.is_causal,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.is_grouped,
        )
        out: Tensor = self.proj_output_dense_layer(mixed.transpose(1, 2).flatten(-2))
        return out
