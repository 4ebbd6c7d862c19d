"""How weights start when no checkpoint gives them: those of transformers normal, those of projectors xavier-uniform."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def initialise(transformer: nn.Module, std: float) -> None:
    """Every matrix normal with deviation `std`, see `normal_`; biases 0. Norms are 1 and 0 already."""
    for module in transformer.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            normal_(module.weight, std)
            bias = getattr(module, "bias", None)
            if isinstance(bias, nn.Parameter):
                nn.init.zeros_(bias)


def normal_(weight: Tensor, std: float) -> None:
    """Normal with deviation `std`, cut off at two deviations; all zeros where that is 0."""
    if std == 0:
        nn.init.zeros_(weight)
    else:
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def xavier(projector: M) -> M:
    """The module, every matrix xavier-uniform and every bias 0."""
    for module in projector.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return projector
