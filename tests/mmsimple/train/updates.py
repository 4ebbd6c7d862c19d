"""A model of two parameters, and updates of it with gradients that are drawn."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from mmsimple.train.optimizer import AdamW, AdamWConfig, build_optimizer
from tests.mmsimple.small import random

UPDATES = 50
PROJECTOR = ("^image_model.image_model_list", "^text_model")
# Large enough that the places of eps, of the correction and of weight decay show.
CONFIG = AdamWConfig(betas=(0.8, 0.95), eps=0.1, weight_decay=0.3)


def rate(update: int) -> float:
    """Another one in each update; 0 in the first, as in a warm-up."""
    return 0.01 * (update % 7)


class Two(nn.Module):
    """A matrix that decays and a bias that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(random(5, 4))
        self.bias = nn.Parameter(random(6, seed=1))


def gradients(count: int = UPDATES, start: int = 0) -> Iterator[dict[str, Tensor]]:
    for update in range(start, start + count):
        yield {"weight": random(5, 4, seed=100 + update), "bias": random(6, seed=200 + update)}


def update(model: nn.Module, optimizer: AdamW, number: int, given: dict[str, Tensor]) -> None:
    """One update with these gradients and none for other parameters."""
    parameters = dict(model.named_parameters())
    optimizer.zero_grad()
    for name, gradient in given.items():
        parameters[name].grad = gradient.to(parameters[name].dtype)
    for group in optimizer.param_groups:
        group["lr"] = rate(number)
    optimizer.step()


def trained(model: nn.Module, config: AdamWConfig, *, fused: bool = True) -> AdamW:
    optimizer = build_optimizer(model, config, fused=fused)
    for number, given in enumerate(gradients()):
        update(model, optimizer, number, given)
    return optimizer


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}
