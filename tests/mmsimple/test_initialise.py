"""Fresh weights: how large, and made once."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import nn

from mmsimple.config import (
    AveragePoolingConfig,
    ClassifierConfig,
    FeedForwardConfig,
    LlamaConfig,
    ProjectorConfig,
    ViTConfig,
)
from mmsimple.initialise import initialise, normal_, xavier
from mmsimple.llama import LlamaModel
from mmsimple.load import build
from mmsimple.projector import build_projector
from mmsimple.vit import ViTClassifier, ViTModel
from tests.mmsimple.small import DECODER, VIT

PROJECTORS: dict[str, ProjectorConfig] = {
    "feed-forward": FeedForwardConfig(300, (100, 300), ("gelu", None), (0.0, 0.0), use_bias=True),
    "pooling": AveragePoolingConfig(300, 100, (1, 2)),
}


@pytest.fixture
def xavier_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the weights that were made xavier-uniform."""
    calls: list[tuple[int, ...]] = []
    make = nn.init.xavier_uniform_

    def record(weight: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(weight.shape))
        return make(weight)

    monkeypatch.setattr(nn.init, "xavier_uniform_", record)
    return calls


def is_xavier(module: nn.Module) -> None:
    for linear in filter(lambda each: isinstance(each, nn.Linear), module.modules()):
        weight, bias = (parameter.detach() for parameter in linear.parameters())
        limit = sqrt(6 / sum(weight.shape))
        assert not bias.any()
        assert 0.99 * limit < float(weight.abs().max()) <= limit
        assert float(weight.std()) == pytest.approx(limit / sqrt(3), rel=0.02)


@pytest.mark.parametrize("config", PROJECTORS.values(), ids=PROJECTORS.keys())
def test_projectors_start_xavier_uniform_and_biases_at_zero(config: ProjectorConfig) -> None:
    torch.manual_seed(0)
    is_xavier(build_projector(config, (4, 4)))


def test_so_does_the_head_of_a_classifier() -> None:
    torch.manual_seed(0)
    encoder = replace(VIT, hidden_size=320)
    is_xavier(ViTClassifier(ClassifierConfig(encoder, 200)).classifier)


@pytest.mark.parametrize("config", [VIT, DECODER])
def test_weights_that_are_normal_are_made_once(
    config: ViTConfig | LlamaConfig, xavier_calls: list[tuple[int, ...]]
) -> None:
    build(config)
    assert xavier_calls == []


def test_without_a_bias_there_is_none_to_make() -> None:
    assert xavier(nn.Linear(3, 4, bias=False)).bias is None
    initialise(nn.Linear(3, 4, bias=False), 0.02)


@pytest.mark.parametrize("std", [0.02, 3.0, 1e4])
def test_normal_weights_are_cut_off_at_two_deviations(std: float) -> None:
    torch.manual_seed(0)
    weight = torch.empty(100, 100)
    normal_(weight, std)
    assert 1.9 * std < float(weight.abs().max()) <= 2 * std
    assert float(weight.std()) == pytest.approx(0.88 * std, rel=0.02)
    assert weight.half().isfinite().all()


@pytest.mark.parametrize(
    "model", [ViTModel(replace(VIT, initializer_range=0)), LlamaModel(replace(DECODER, initializer_range=0))]
)
def test_a_deviation_of_0_makes_zeros(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        is_norm = name.endswith("weight") and ("norm" in name or "ln" in name)
        assert torch.equal(parameter, torch.full_like(parameter, float(is_norm))), name
