"""What must hold of every converter's tables, whatever the model: both directions are one relation, read twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmconvert import registry, spellings, testing
from mmconvert.converter import Converter
from mmconvert.releases import Release
from mmconvert.spec import A, expand

Sample = dict[str, Any]
Samples = Callable[[Converter], list[Sample]]

DECODER = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 320,
}
DECODERS: list[Sample] = [
    DECODER,
    {**DECODER, "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    {**DECODER, "num_key_value_heads": 1, "tie_word_embeddings": True},
]
TOWER = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
JOINED: list[Sample] = [
    {
        "model_type": "llava",
        "image_token_index": 320,
        "text_config": {"model_type": kind, **each, "vocab_size": rows},
        "vision_config": TOWER,
        "vision_feature_layer": layer,
        "vision_feature_select_strategy": strategy,
    }
    for kind, each, rows, layer, strategy in (
        ("llama", DECODERS[0], 384, -2, "default"),
        ("mistral", {**DECODER, "num_key_value_heads": 2, "sliding_window": 32}, 322, -1, "full"),
        ("llama", DECODERS[2], 321, 1, "default"),
    )
]
NAMED = "a model section has a name"
NAMED_SINCE = Release(2, 4)


def named(converter: Converter) -> str:
    return f"{converter.model}-{converter.a.name}"


every_converter = pytest.mark.parametrize("converter", registry.converters(), ids=named)
every_edge = pytest.mark.parametrize("converter", registry.edges(), ids=named)
every_check = pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)


@pytest.fixture
def samples(llava_config: Callable[..., Sample]) -> Samples:
    """Several configs for each model; a new model needs an entry."""

    def of(converter: Converter) -> list[Sample]:
        if converter.a is converter.b:
            # Between releases: what a converter from elsewhere makes.
            maker = next(each for each in registry.converters() if each.b is converter.b)
            return [dict(maker.configs.translate(A, config).target) for config in of(maker)]
        if converter.a.name == "llava-hf":
            return JOINED
        text = "llama" if converter.a.name == "hf" else "llava_llama"
        joined = [
            llava_config(model_type=text, mm_projector_type=kind, **each)
            for each, kind in zip(DECODERS, ("linear", "mlp2x_gelu", "mlp3x_gelu"), strict=True)
        ]
        known = {
            "clip-vit": [{**TOWER, "projection_dim": 24}],
            "clip-encoder": [TOWER],
            "llama": [{"model_type": "llama", **each} for each in DECODERS],
            "llama-headless": [{"model_type": "llama", "architectures": ["LlamaModel"], **each} for each in DECODERS],
            "llava": joined,
            "mistral": [{"model_type": "mistral", **each} for each in DECODERS],
            "mmsimple-llava": joined,
        }
        return known[converter.model]

    return of


@every_check
@every_edge
def test_what_must_hold_of_every_converter(check: testing.Check, converter: Converter, samples: Samples) -> None:
    check(converter, samples(converter))


@every_converter
def test_random_checkpoints_come_back(converter: Converter, samples: Samples, tmp_path: Path) -> None:
    for number, config in enumerate(samples(converter)):
        testing.round_trip(converter, config, tmp_path / str(number))


@every_converter
def test_some_rows_are_moved(converter: Converter, samples: Samples) -> None:
    for config in samples(converter):
        translation = converter.configs.translate(A, config)
        section = converter.configs.b.read(translation.target)
        assert any(pair.index is not None for pair in expand(converter.tables, section, translation.source).pairs)


@every_converter
def test_a_model_is_named_since_2_4_or_always(converter: Converter, samples: Samples) -> None:
    since = next((each.since for each in converter.b.changes if each.what == NAMED), converter.b_releases[0])
    assert since in (NAMED_SINCE, converter.b_releases[0])
    section = converter.configs.translate(A, samples(converter)[0]).target
    for release in converter.b_releases:
        assert ("name" in spellings.write(converter.b.changes, section, release)) == (release >= since)
