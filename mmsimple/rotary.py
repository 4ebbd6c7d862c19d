"""Rotary position embeddings as CS computes them: neighbouring entries of a head turn together, as in RoFormer.

Hugging Face turns entry i with entry i + R/2 instead, which is why a conversion reorders the rows of q and k.
Shape letters: S positions, R rotated entries of a head, D head size; h is R/2, one frequency each.
"""

from __future__ import annotations

from math import ceil, floor, log, pi, sqrt
from typing import Any

import torch
from torch import Tensor

from mmsimple.config import BETA_FAST, BETA_SLOW, LlamaConfig

Rotation = tuple[Tensor, Tensor]


def frequencies(config: LlamaConfig) -> tuple[Tensor, float]:
    """The angle by which each pair turns per position, [h] in float32, and what cosines and sines are multiplied by.

    The scalings stretch a model past the length that it was trained on: `linear` (all positions alike), `llama3` and
    `yarn` (slow pairs more than fast ones), `longrope` (each pair by a factor of its own).
    """
    pairs = torch.arange(0, config.rotary_dim, 2, device="cpu").float() / config.rotary_dim
    plain = 1.0 / config.rope_theta**pairs  # [h]
    return _SCALINGS[config.pos_scaling_type](plain, config, config.pos_scaling_extra_args)


def rotation(config: LlamaConfig, positions: Tensor, dtype: torch.dtype) -> Rotation:
    """Cosines and sines of every position's angles, each [S, h]."""
    turns, scale = frequencies(config)
    angles = torch.outer(positions.float(), turns.to(positions.device))
    return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)


def rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    """Turn the first R entries of every head, [..., S, D]; entries past R stay."""
    cos, sin = rotation
    rotated = 2 * cos.shape[-1]
    turned, rest = heads[..., :rotated], heads[..., rotated:]
    x, y = turned.reshape(*turned.shape[:-1], -1, 2).unbind(-1)  # [..., S, h]
    turned = torch.stack((x * cos - y * sin, y * cos + x * sin), dim=-1).flatten(-2)
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


def _linear(plain: Tensor, config: LlamaConfig, _: dict[str, Any]) -> tuple[Tensor, float]:
    return plain / config.pos_scaling_factor, 1.0


def _llama3(plain: Tensor, config: LlamaConfig, extra: dict[str, Any]) -> tuple[Tensor, float]:
    """Pairs that turn often within the original length stay, those that hardly turn are stretched; a ramp between."""
    low, high = extra["low_freq_factor"], extra["high_freq_factor"]
    full_turns = extra["original_max_position_embeddings"] * plain / (2 * pi)
    kept = ((full_turns - low) / (high - low)).clamp(0, 1)
    return plain * kept + plain / config.pos_scaling_factor * (1 - kept), 1.0


def _yarn(plain: Tensor, config: LlamaConfig, extra: dict[str, Any]) -> tuple[Tensor, float]:
    """YaRN: the same idea over the pairs' numbers, and attention made sharper (`mscale_a`, `mscale_b`)."""
    factor, dim = config.pos_scaling_factor, config.rotary_dim
    original = extra["original_max_position_embeddings"]

    def pair_with(turns: float) -> float:
        """The pair, as a fraction of a number, that makes so many turns within the original length."""
        return dim * log(original / (turns * 2 * pi)) / (2 * log(config.rope_theta))

    first = max(floor(pair_with(extra.get("beta_fast", BETA_FAST))), 0)
    last = min(ceil(pair_with(extra.get("beta_slow", BETA_SLOW))), dim - 1)
    ramp = (torch.arange(dim // 2, device="cpu").float() - first) / (last - first or 0.001)
    kept = (1 - ramp.clamp(0, 1)) * extra.get("extrapolation_factor", 1.0)
    scale = extra.get("mscale_a", 0.1) * log(factor) + extra.get("mscale_b", 1.0) if factor > 1 else 1.0
    return plain * kept + plain / factor * (1 - kept), scale


def _longrope(plain: Tensor, config: LlamaConfig, extra: dict[str, Any]) -> tuple[Tensor, float]:
    """A factor for each pair; CS takes the long ones as soon as the model may see more than the original length."""
    original, factor = extra["original_max_position_embeddings"], config.pos_scaling_factor
    is_long = config.max_position_embeddings > original
    stretch = torch.tensor(extra["long_factor" if is_long else "short_factor"], dtype=torch.float32, device="cpu")
    scale = sqrt(1 + log(factor) / log(original)) if factor > 1 else 1.0
    return plain / stretch, scale


_SCALINGS = {"linear": _linear, "llama3": _llama3, "yarn": _yarn, "longrope": _longrope}
