"""How the weights of a transformer start when no checkpoint gives them."""

from __future__ import annotations

from torch import nn


def initialise(transformer: nn.Module, std: float) -> None:
    """Every matrix normal with deviation `std`, cut off at two deviations; biases 0. Norms are 1 and 0 already."""
    for module in transformer.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            bias = getattr(module, "bias", None)
            if isinstance(bias, nn.Parameter):
                nn.init.zeros_(bias)
