"""What must hold of every converter's tables, whatever the model: both directions are one relation, read twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest

from mmconvert import registry, spellings
from mmconvert.converter import Converter
from mmconvert.errors import InputRefused
from mmconvert.paths import get, put
from mmconvert.releases import Release
from mmconvert.rows import inverse
from mmconvert.spec import A, B, Expansion, Key, captures, expand

if TYPE_CHECKING:
    from tests.converters.conftest import LeafPaths

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
NAMED_SINCE = Release(2, 4)

every_converter = pytest.mark.parametrize(
    "converter", registry.converters(), ids=lambda converter: f"{converter.model}-{converter.a.name}"
)


@pytest.fixture
def samples(llava_config: Callable[..., Sample]) -> Samples:
    """Several configs for each model; a new model needs an entry."""

    def of(converter: Converter) -> list[Sample]:
        text = "llama" if converter.a.name == "hf" else "llava_llama"
        known = {
            "clip-vit": [{"model_type": "clip_vision_model", "num_hidden_layers": 2}],
            "clip-encoder": [{"model_type": "clip_vision_model", "num_hidden_layers": 2}],
            "llama-headless": [{"model_type": "llama", "architectures": ["LlamaModel"], **each} for each in DECODERS],
            "llava": [
                llava_config(model_type=text, mm_projector_type=kind, **each)
                for each in DECODERS
                for kind in ("linear", "mlp2x_gelu", "mlp3x_gelu")
            ],
            "llama": [{"model_type": "llama", **each} for each in DECODERS],
            "mistral": [{"model_type": "mistral", **each} for each in DECODERS],
            "mmsimple-llava": [
                llava_config(model_type=text, mm_projector_type=kind, **each)
                for each in DECODERS
                for kind in ("linear", "mlp2x_gelu", "mlp3x_gelu")
            ],
        }
        return known[converter.model]

    return of


def expansions(converter: Converter, samples: list[Sample]) -> Iterator[Expansion]:
    for config in samples:
        yield expand(converter.tables, converter.configs.b.read(converter.configs.translate(A, config).target))


@every_converter
def test_captures_agree_on_both_sides(converter: Converter) -> None:
    rows = [row for table in converter.tables for row in table.rows if isinstance(row, Key)]
    assert rows
    assert [row for row in rows if captures(row.a) != captures(row.b)] == []


@every_converter
def test_no_name_stands_for_two_tensors(converter: Converter, samples: Samples) -> None:
    for expansion in expansions(converter, samples(converter)):
        for side in (A, B):
            names = [pair.name(side) for pair in expansion.pairs]
            names += [twin.key for twin in expansion.twins if twin.side == side]
            assert len(names) == len(set(names))
            assert [name for name in names if expansion.dropped(side, name)] == []


@every_converter
def test_a_twin_repeats_a_tensor_that_is_there(converter: Converter, samples: Samples) -> None:
    for expansion in expansions(converter, samples(converter)):
        assert [twin for twin in expansion.twins if twin.of not in expansion.by_name[twin.side]] == []


@every_converter
def test_rows_are_moved_without_loss_and_moved_back(converter: Converter, samples: Samples) -> None:
    for expansion in expansions(converter, samples(converter)):
        moved = [pair for pair in expansion.pairs if pair.index is not None]
        assert moved
        for pair in moved:
            assert pair.index is not None
            rows = list(range(pair.shape[0]))
            assert sorted(pair.index) == rows
            back = inverse(pair.index)
            assert [pair.index[row] for row in back] == rows


@every_converter
def test_every_release_s_classes_accept_the_section_written(
    converter: Converter, samples: Samples, leaf_paths: LeafPaths
) -> None:
    for config in samples(converter):
        for _ in [1]:
            section = converter.configs.translate(A, config).target
            for part, schema in converter.configs.b.schemas(section).items():
                assert schema.problem(get(section, part)) is None
                assert [path for path in leaf_paths(get(section, part)) if schema.is_deprecated(path)] == []


@every_converter
def test_the_model_is_named_since_2_4(converter: Converter, samples: Samples) -> None:
    for release in converter.b_releases:
        section = spellings.write(
            converter.b.changes, converter.configs.translate(A, samples(converter)[0]).target, release
        )
        assert ("name" in section) == (release >= NAMED_SINCE)


@every_converter
def test_a_section_is_known_as_its_own_model_s(converter: Converter, samples: Samples) -> None:
    for release in converter.b_releases:
        section = spellings.write(
            converter.b.changes, converter.configs.translate(A, samples(converter)[0]).target, release
        )
        assert {each.model for each in registry.converters() if not each.b.by_name and each.b.parts[""](section)} - {
            converter.model
        } <= {"llama"}


@every_converter
def test_a_section_comes_back_the_same(converter: Converter, samples: Samples) -> None:
    for config in samples(converter):
        section = converter.configs.translate(A, config).target
        back = converter.configs.translate(B, section).target
        assert converter.configs.translate(A, back).target == section


@every_converter
def test_no_two_choices_become_one(converter: Converter, samples: Samples) -> None:
    config = samples(converter)[0]
    for part in converter.a.parts:
        said: dict[str, Any] = {}
        for choice in ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "swish"):
            with suppress(InputRefused):
                changed = put(config, f"{part}.hidden_act" if part else "hidden_act", choice)
                said[choice] = converter.configs.translate(A, changed).target
        assert len(said) > 1
        assert not [pair for pair in combinations(said, 2) if said[pair[0]] == said[pair[1]]]
