"""Projectors against loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmsimple.config import AveragePoolingConfig, FeedForwardConfig, IdentityConfig, ProjectorConfig
from mmsimple.projector import build_projector, tokens_after
from tests.mmsimple.small import apart, drawn, random


@torch.inference_mode()
@pytest.mark.parametrize("use_bias", [False, True])
def test_average_pooling_is_the_mean_of_each_cell_through_a_linear_layer(use_bias: bool) -> None:
    projector = drawn(build_projector(AveragePoolingConfig(5, 7, (2, 3), use_bias), (4, 9)))
    features = random(2, 36, 5)
    w = dict(projector.named_parameters())
    assert set(w) == {f"linear_layer.{name}" for name in ("weight", "bias")[: 1 + use_bias]}
    expected = torch.zeros(2, 6, 7)
    for row in range(2):
        for column in range(3):
            cell = [(2 * row + r) * 9 + 3 * column + c for r in range(2) for c in range(3)]
            mean = sum((features[:, patch] for patch in cell), torch.zeros(2, 5)) / len(cell)
            expected[:, row * 3 + column] = mean @ w["linear_layer.weight"].T
    if use_bias:
        expected += w["linear_layer.bias"]
    assert apart(projector(features), expected) < 1e-6


@torch.inference_mode()
def test_cells_that_do_not_divide_the_grid_overlap() -> None:
    projector = drawn(build_projector(AveragePoolingConfig(1, 1, (2, 1), use_bias=False), (3, 1)))
    features = torch.tensor([[[1.0], [10.0], [100.0]]])
    weight = float(next(projector.parameters()))
    assert projector(features).flatten().tolist() == pytest.approx([5.5 * weight, 55 * weight])


def test_identity_passes_features_on() -> None:
    projector = build_projector(IdentityConfig(), (2, 2))
    features = random(2, 4, 5)
    assert torch.equal(projector(features), features)
    assert not list(projector.parameters())


@torch.inference_mode()
def test_a_feed_forward_network_takes_every_token_through_its_layers() -> None:
    config = FeedForwardConfig(5, (6, 7), ("relu", None), (0.0, 0.0), use_bias=True)
    projector = drawn(build_projector(config, (2, 2)))
    features = random(2, 4, 5)
    w = dict(projector.named_parameters())
    inner = (features @ w["ffn.0.linear_layer.weight"].T + w["ffn.0.linear_layer.bias"]).clamp(min=0)
    expected = inner @ w["ffn.1.linear_layer.weight"].T + w["ffn.1.linear_layer.bias"]
    assert apart(projector(features), expected) < 1e-6


def test_dropout_of_a_projector_is_what_its_config_says() -> None:
    config = FeedForwardConfig(5, (6, 7), ("relu", None), (0.25, 0.5))
    rates = [each.p for each in build_projector(config, (2, 2)).modules() if isinstance(each, nn.Dropout)]
    assert rates == [0.25, 0.5]


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (None, 36),
        (IdentityConfig(), 36),
        (FeedForwardConfig(5, (7,), (None,), (0.0,)), 36),
        (AveragePoolingConfig(5, 7, (2, 3)), 6),
    ],
)
def test_how_many_tokens_come_out_is_known_beforehand(config: ProjectorConfig | None, tokens: int) -> None:
    assert tokens_after(config, 36) == tokens
    if config is not None:
        assert build_projector(config, (4, 9))(random(2, 36, 5)).shape[1] == tokens
