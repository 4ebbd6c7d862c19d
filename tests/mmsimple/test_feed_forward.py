"""Feed-forward networks against their formulas."""

from __future__ import annotations

from collections.abc import Callable
from math import erf, exp, sqrt, tanh

import pytest
import torch
from torch import Tensor

from mmsimple.config import ACTIVATIONS
from mmsimple.feed_forward import FUNCTIONS, GATED, DualExpert, FeedForwardNetwork
from tests.mmsimple.small import apart, drawn, random

FORMULAS: dict[str, Callable[[float], float]] = {
    "gelu": lambda x: x * (1 + erf(x / sqrt(2))) / 2,
    "quick_gelu": lambda x: x / (1 + exp(-1.702 * x)),
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x / (1 + exp(-x)),
    "tanh": tanh,
    "sigmoid": lambda x: 1 / (1 + exp(-x)),
}
GATES = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu"}


def activated(name: str, x: Tensor) -> Tensor:
    return torch.tensor([FORMULAS[name](value) for value in x.flatten().tolist()]).reshape(x.shape)


def weights(network: FeedForwardNetwork) -> dict[str, Tensor]:
    return dict(network.named_parameters())


@pytest.mark.parametrize("name", FORMULAS)
def test_activations_are_their_formulas(name: str) -> None:
    x = random(50) * 3
    torch.testing.assert_close(FUNCTIONS[name](x), activated(name, x), rtol=1e-5, atol=1e-6)


def test_every_activation_that_a_config_may_name_has_a_function_and_a_formula_here() -> None:
    assert {*ACTIVATIONS} == FUNCTIONS.keys() == FORMULAS.keys()
    assert GATED == GATES


@torch.inference_mode()
@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("bias", [False, True])
def test_a_gate_is_the_activation_of_its_own_layer_and_multiplies_the_other(name: str, bias: bool) -> None:
    network = drawn(FeedForwardNetwork((6, 10, 6), (name, None), bias=bias))
    w, x = weights(network), random(2, 3, 6)
    up, gate = x @ w["ffn.0.linear_layer.weight"].T, x @ w["ffn.0.linear_layer_for_glu.weight"].T
    if bias:
        up, gate = up + w["ffn.0.linear_layer.bias"], gate + w["ffn.0.linear_layer_for_glu.bias"]
    expected = up * activated(GATES[name], gate) @ w["ffn.1.linear_layer.weight"].T
    if bias:
        expected = expected + w["ffn.1.linear_layer.bias"]
    assert apart(network(x), expected) < 1e-6


@torch.inference_mode()
def test_layers_run_in_a_row_each_with_its_activation() -> None:
    network = drawn(FeedForwardNetwork((4, 7, 5, 3), ("gelu", None, "tanh"), bias=True))
    w, expected = weights(network), random(2, 4)
    for number, name in enumerate(("gelu", None, "tanh")):
        expected = expected @ w[f"ffn.{number}.linear_layer.weight"].T + w[f"ffn.{number}.linear_layer.bias"]
        expected = expected if name is None else activated(name, expected)
    assert apart(network(random(2, 4)), expected) < 1e-6


@torch.inference_mode()
def test_dual_experts_are_chosen_token_by_token() -> None:
    network = drawn(FeedForwardNetwork((6, 10, 6), ("swiglu", None), bias=True, static_dual_expert=True))
    w, x = weights(network), random(2, 5, 6)
    modality = torch.tensor([[0, 1, 1, 0, 1], [1, 0, 0, 0, 0]])
    expected = torch.zeros(2, 5, 6)
    for sample in range(2):
        for position in range(5):
            expert = "linear_img" if modality[sample, position] else "linear_text"

            def linear(layer: str, x: Tensor, expert: str = expert) -> Tensor:
                return w[f"{layer}.{expert}.weight"] @ x + w[f"{layer}.{expert}.bias"]

            token = x[sample, position]
            gate = activated("silu", linear("ffn.0.linear_layer_for_glu", token))
            inner = linear("ffn.0.linear_layer", token) * gate
            expected[sample, position] = linear("ffn.1.linear_layer", inner)
    assert apart(network(x, modality), expected) < 1e-6


@torch.inference_mode()
def test_only_a_modality_of_1_is_an_image() -> None:
    network = drawn(FeedForwardNetwork((6, 6), (None,), bias=True, static_dual_expert=True))
    x, text = random(1, 4, 6), torch.zeros(1, 4)
    found = network(x, torch.tensor([[0, 1, 2, -1]]))
    assert torch.equal(found[:, [0, 2, 3]], network(x, text)[:, [0, 2, 3]])
    assert torch.equal(found[:, 1], network(x, text + 1)[:, 1])


def test_only_dual_experts_read_the_modality() -> None:
    network = drawn(FeedForwardNetwork((6, 6), ("gelu",), bias=True))
    assert not any(isinstance(module, DualExpert) for module in network.modules())
    x = random(1, 2, 6)
    assert torch.equal(network(x), network(x, torch.ones(1, 2)))


def test_each_layer_drops_out_by_its_own_rate_in_training() -> None:
    network = drawn(FeedForwardNetwork((8, 1000, 1000), (None, None), bias=False, dropouts=(0.0, 0.75)))
    x = random(1, 8)
    assert (network(x) != 0).all()
    torch.manual_seed(0)
    inner = network.train().ffn[0](x)
    dropped = float((network(x) == 0).float().mean())
    assert (inner != 0).all()
    assert 0.7 < dropped < 0.8
