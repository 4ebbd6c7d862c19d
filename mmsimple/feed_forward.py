"""The feed-forward network that CS uses everywhere: in each block, as a projector and as a classifier's head.

Shape letters: B samples, S positions; the last dimension is whatever the layer takes or gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


# Of the names in `mmsimple.config.ACTIVATIONS`.
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    # The exact form, by the error function.
    "gelu": F.gelu,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
# Gated linear units: the activation is of a second linear layer's output, which multiplies the first one's.
GATED = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu"}


class DualExpert(nn.Module):
    """Two linear layers, one for image tokens and one for text, chosen token by token."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.linear_img = nn.Linear(inputs, outputs, bias)
        self.linear_text = nn.Linear(inputs, outputs, bias)

    def forward(self, x: Tensor, modality: Tensor) -> Tensor:
        return torch.where(modality[..., None] == 1, self.linear_img(x), self.linear_text(x))


class FeedForwardLayer(nn.Module):
    """A linear layer, its activation (None: none) and dropout; a gated activation has a linear layer of its own."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        activation: str | None,
        *,
        bias: bool,
        dropout: float = 0.0,
        static_dual_expert: bool = False,
    ) -> None:
        super().__init__()
        linear = DualExpert if static_dual_expert else nn.Linear
        gated = activation in GATED
        self.static_dual_expert = static_dual_expert
        self.linear_layer = linear(inputs, outputs, bias)
        self.linear_layer_for_glu = linear(inputs, outputs, bias) if gated else None
        self.activation = None if activation is None else FUNCTIONS[GATED.get(activation, activation)]
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, modality: Tensor | None = None) -> Tensor:
        experts = (modality,) if self.static_dual_expert else ()
        out: Tensor = self.linear_layer(x, *experts)
        if self.linear_layer_for_glu is not None and self.activation is not None:
            out = out * self.activation(self.linear_layer_for_glu(x, *experts))
        elif self.activation is not None:
            out = self.activation(out)
        dropped: Tensor = self.dropout(out)
        return dropped


class FeedForwardNetwork(nn.Module):
    """Layers in a row, CS `FeedForwardNetwork`: keys `ffn.{j}.linear_layer.{weight,bias}`.

    `units` are the sizes before, between and after the layers. How weights start is for what it is a part of to say.
    """

    def __init__(
        self,
        units: Sequence[int],
        activations: Sequence[str | None],
        *,
        bias: bool,
        dropouts: Sequence[float] | None = None,
        static_dual_expert: bool = False,
    ) -> None:
        super().__init__()
        rates = dropouts or [0.0] * len(activations)
        sizes = zip(units[:-1], units[1:], activations, rates, strict=True)
        self.ffn = nn.ModuleList(
            FeedForwardLayer(
                inputs, outputs, activation, bias=bias, dropout=rate, static_dual_expert=static_dual_expert
            )
            for inputs, outputs, activation, rate in sizes
        )

    def forward(self, x: Tensor, modality: Tensor | None = None) -> Tensor:
        """`x` is [..., inputs]; `modality` [B, S] is 1 at image tokens, and read by dual experts only."""
        for layer in self.ffn:
            x = layer(x, modality)
        return x
