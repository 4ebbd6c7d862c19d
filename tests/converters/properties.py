"""What the properties of converters are stated with: every converter, and the facts of a config that was drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import Phase, settings

from mmconvert import registry
from mmconvert.converter import Converter
from mmconvert.paths import ABSENT, get

Config = dict[str, Any]

IMAGE, TEXT = "image_model", "text_model"
VISION_CONFIG, TEXT_CONFIG = "vision_config", "text_config"
MULTIMODAL = ("llava", "mmsimple-llava")
# The one format of theirs that keeps all parts in one folder.
JOINED = "llava-hf"
# By name, so that a failing example is not buried in the tables of its converter.
CONVERTERS = {f"{each.model}-{each.a.name}": each for each in registry.converters()}

every_converter = pytest.mark.parametrize("name", CONVERTERS)


def examples(number: int, shrink: bool = True) -> settings:
    """How many examples a property is tried with; the same ones in every run where CI is set.

    Where each example takes a while, to `shrink` one that fails would take minutes.
    """
    phases = [phase for phase in Phase if shrink or phase not in (Phase.shrink, Phase.explain)]
    return settings(max_examples=number, phases=phases, deadline=None, derandomize="CI" in os.environ)


@dataclass(frozen=True)
class Decoder:
    """What a LLaMA or Mistral holds."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocab: int
    tied: bool
    attention_bias: bool
    mlp_bias: bool

    @property
    def hidden(self) -> int:
        return self.heads * self.head_dim


@dataclass(frozen=True)
class Tower:
    """What a CLIP tower holds."""

    layers: int
    hidden: int
    inner: int
    channels: int
    patch: int
    positions: int
    classes: int


@dataclass(frozen=True)
class Sample:
    """A config of side a in two spellings, with what its checkpoint holds; `depth` is the projector's.

    Where `says_depth` is false, only the tensors tell how deep the projector is. `rows` are those of side a's
    vocabulary, where it has more of them than side b's, which has as many as the decoder has tokens.
    """

    model: str
    config: Config
    plain: Config
    form: str = "hf"
    text: Decoder | None = None
    tower: Tower | None = None
    depth: int = 0
    says_depth: bool = True
    projector_bias: bool = True
    rows: int | None = None


def meaning(converter: Converter, config: Mapping[str, Any], found: frozenset[str] = frozenset()) -> dict[str, Any]:
    """What a config of side a says that side b has words for, class defaults filled in; null is no value."""
    full = converter.configs.a.read(config, found)
    said = {path: get(full, path) for rule in converter.configs.rules if rule.b for path in rule.a}
    return {path: value for path, value in said.items() if value is not ABSENT and value is not None}
