"""Rotary positions: frequencies of every scaling against transformers', and which entries turn together."""

from __future__ import annotations

from dataclasses import replace
from math import cos, log, sin
from typing import Any

import pytest
import torch
from torch import Tensor

from mmsimple.config import LlamaConfig
from mmsimple.rotary import frequencies, rotate, rotation
from tests.mmsimple.small import DECODER, random

# A head of 64 has pairs on both sides of every ramp.
LONG = replace(DECODER, hidden_size=256, rotary_dim=64, max_position_embeddings=8192)
ORIGINAL = {"original_max_position_embeddings": 2048}
BANDS = {"low_freq_factor": 1.5, "high_freq_factor": 5.0}
FACTORS = {"short_factor": [1.0 + n / 64 for n in range(32)], "long_factor": [1.0 + n / 4 for n in range(32)]}

# What CS calls a scaling, with its arguments, and transformers' arguments that differ.
SCALINGS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "linear": ("linear", {}, {}),
    "llama3": ("llama3", {**ORIGINAL, **BANDS}, {}),
    "yarn": ("yarn", ORIGINAL, {}),
    "yarn-with-its-own-betas": ("yarn", {**ORIGINAL, "beta_fast": 16, "beta_slow": 2}, {}),
    "yarn-with-a-ramp-that-ends-before-it-begins": ("yarn", {**ORIGINAL, "beta_fast": 1e6, "beta_slow": 1e5}, {}),
    # Just above one turn of the slowest pair, where the ramp begins and ends with the first one.
    "yarn-with-a-ramp-of-no-length": ("yarn", {**ORIGINAL, "beta_fast": 1000, "beta_slow": 329}, {}),
    "yarn-with-an-attention-factor": (
        "yarn",
        {**ORIGINAL, "mscale_a": 0.0, "mscale_b": 1.3},
        {"attention_factor": 1.3},
    ),
    "longrope": ("longrope", {**ORIGINAL, **FACTORS}, {}),
}


def scaled(kind: str, arguments: dict[str, Any], factor: float = 4.0) -> LlamaConfig:
    return replace(LONG, pos_scaling_type=kind, pos_scaling_factor=factor, pos_scaling_extra_args=arguments)


def theirs(config: LlamaConfig, changes: dict[str, Any]) -> tuple[Tensor, float]:
    """transformers' frequencies for an input of as many tokens as the model may see."""
    from transformers import LlamaConfig as TheirConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    arguments = {name: value for name, value in config.pos_scaling_extra_args.items() if "mscale" not in name}
    parameters = {"rope_type": config.pos_scaling_type, "factor": config.pos_scaling_factor, **arguments, **changes}
    their_config = TheirConfig(
        hidden_size=config.hidden_size,
        num_attention_heads=config.num_heads,
        max_position_embeddings=config.max_position_embeddings,
        rope_parameters={"rope_theta": config.rope_theta, **parameters},
    )
    length = config.max_position_embeddings
    turns, scale = ROPE_INIT_FUNCTIONS[config.pos_scaling_type](their_config, torch.device("cpu"), seq_len=length)
    return turns, scale


@pytest.mark.parametrize("theta", [10000.0, 500000.0])
@pytest.mark.parametrize(("kind", "arguments", "changes"), SCALINGS.values(), ids=SCALINGS.keys())
def test_frequencies_are_those_of_transformers(
    kind: str, arguments: dict[str, Any], changes: dict[str, Any], theta: float
) -> None:
    config = replace(scaled(kind, arguments), rope_theta=theta)
    turns, scale = frequencies(config)
    expected, expected_scale = theirs(config, changes)
    torch.testing.assert_close(turns, expected, rtol=1e-6, atol=0)
    assert scale == pytest.approx(expected_scale, rel=1e-12)


def test_a_ramp_of_yarns_ends_with_the_last_entry_of_a_head() -> None:
    """With so small a base even the slowest pair turns more often than `beta_slow`."""
    config = replace(scaled("yarn", {**ORIGINAL, "beta_fast": 1000}), rope_theta=4.0)
    turns, plain = frequencies(config)[0], frequencies(replace(LONG, rope_theta=4.0))[0]
    torch.testing.assert_close(turns, theirs(config, {})[0], rtol=1e-6, atol=0)
    kept = 1 - torch.arange(32) / 63
    torch.testing.assert_close(turns, plain * kept + plain / 4 * (1 - kept))


@pytest.mark.parametrize("kind", ["llama3", "yarn", "longrope"])
def test_a_scaling_is_no_other_one(kind: str) -> None:
    turns, _ = frequencies(scaled(kind, SCALINGS[kind][1]))
    plain, _ = frequencies(LONG)
    assert len({round(ratio, 3) for ratio in (turns / plain).tolist()}) > 5


def test_linear_divides_every_position() -> None:
    cosines, _ = rotation(scaled("linear", {}), torch.arange(9), torch.float32)
    plain, _ = rotation(LONG, torch.arange(9), torch.float32)
    torch.testing.assert_close(cosines[8], plain[2])


def test_longrope_takes_the_short_factors_where_the_model_sees_no_more_than_before() -> None:
    config = scaled("longrope", {**ORIGINAL, **FACTORS})
    short = replace(config, max_position_embeddings=2048)
    plain, _ = frequencies(LONG)
    torch.testing.assert_close(frequencies(short)[0], plain / torch.tensor(FACTORS["short_factor"]))
    torch.testing.assert_close(frequencies(config)[0], plain / torch.tensor(FACTORS["long_factor"]))


@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize(("kind", "more"), [("yarn", {}), ("yarn", {"mscale_b": 2.0}), ("longrope", {})])
def test_a_factor_of_1_or_less_makes_attention_no_sharper(kind: str, more: dict[str, float], factor: float) -> None:
    arguments = {**SCALINGS[kind][1], **more}
    assert frequencies(scaled(kind, arguments, factor=factor))[1] == 1.0
    assert frequencies(scaled(kind, arguments))[1] > 1.0


def test_yarns_own_words_sharpen_attention_and_slow_extrapolation_down() -> None:
    arguments = {**ORIGINAL, "mscale_a": 0.2, "mscale_b": 0.9, "extrapolation_factor": 0.0}
    turns, scale = frequencies(scaled("yarn", arguments))
    assert scale == pytest.approx(0.2 * log(4) + 0.9)
    torch.testing.assert_close(turns, frequencies(LONG)[0] / 4)


def test_neighbouring_entries_turn_together() -> None:
    config = replace(DECODER, rotary_dim=4, rope_theta=100.0)
    heads = random(1, 1, 3, 4)
    turned = rotate(heads, rotation(config, torch.arange(3), torch.float32))
    for position in range(3):
        for pair, frequency in enumerate((1.0, 0.1)):
            angle = position * frequency
            x, y = heads[0, 0, position, 2 * pair : 2 * pair + 2].tolist()
            expected = [x * cos(angle) - y * sin(angle), x * sin(angle) + y * cos(angle)]
            assert turned[0, 0, position, 2 * pair : 2 * pair + 2].tolist() == pytest.approx(expected, abs=1e-6)


def test_entries_past_the_rotated_ones_stay() -> None:
    heads = random(2, 3, 5, 12)
    turned = rotate(heads, rotation(replace(DECODER, rotary_dim=8), torch.arange(5), torch.float32))
    assert torch.equal(turned[..., 8:], heads[..., 8:])
    assert not torch.isclose(turned[..., 1:, :8], heads[..., 1:, :8]).any()


def test_scores_depend_on_distance_alone() -> None:
    q, k = random(1, 1, 1, 12, seed=1).expand(1, 1, 9, 12), random(1, 1, 1, 12, seed=2).expand(1, 1, 9, 12)
    turns = rotation(DECODER, torch.arange(9), torch.float32)
    scores = (rotate(q, turns) @ rotate(k, turns).mT)[0, 0]
    for distance in range(-8, 9):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)


def test_angles_are_reckoned_in_float32_also_for_bfloat16() -> None:
    """bfloat16 has no 257: positions must not be rounded before they are multiplied."""
    positions = torch.tensor([256, 257])
    cosines, sines = rotation(DECODER, positions, torch.bfloat16)
    assert (cosines.dtype, sines.dtype) == (torch.bfloat16, torch.bfloat16)
    assert cosines[0, 0] != cosines[1, 0]
    assert torch.equal(cosines, rotation(DECODER, positions, torch.float32)[0].to(torch.bfloat16))
