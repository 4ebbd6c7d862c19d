"""Any llava-hf checkpoint: what its config says besides, names of memory, and numbers that are none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmconvert.assembly import assemble
from mmconvert.options import Options
from mmconvert.registry import Hop
from mmconvert.spec import A, B
from tests.converters.checkpoints import FLOAT32, checkpoint, contents, taken, weights
from tests.converters.properties import CONVERTERS, JOINED, MULTIMODAL, TEXT_CONFIG, examples
from tests.converters.reference import held, written
from tests.converters.reference_rows import through_side_b
from tests.converters.strategies import samples

OPTIONS = Options()
every_model = pytest.mark.parametrize("name", [f"{model}-{JOINED}" for model in MULTIMODAL])


@every_model
@examples(30)
@given(data=st.data())
def test_what_follows_from_the_rest_is_said_rightly(name: str, data: st.DataObject) -> None:
    converter = CONVERTERS[name]
    sample = data.draw(samples(converter, large=True))
    assert sample.text is not None
    assert sample.tower is not None
    config = converter.configs.translate(B, converter.configs.translate(A, sample.config).target).target
    own, text = sample.text.vocab, config[TEXT_CONFIG]
    assert (config["image_token_index"], config["pad_token_id"]) == (own, own + 1)
    assert text["vocab_size"] % 64 == 0
    assert own + 2 <= text["vocab_size"] < own + 2 + 64
    # Every position of the tower is a patch, but for the class token's.
    with_class_token = config["vision_feature_select_strategy"] == "full"
    assert config["image_seq_length"] == sample.tower.positions - (not with_class_token)
    assert config["tie_word_embeddings"] is text["tie_word_embeddings"] is sample.text.tied


@every_model
@examples(20)
@given(data=st.data())
def test_rows_are_filled_whatever_the_numbers_are(name: str, data: st.DataObject) -> None:
    converter, sample = CONVERTERS[name], data.draw(samples(CONVERTERS[name]))
    holding = held(sample)
    tensors = replace(data.draw(weights()), broken=True).held(holding, A)
    there = assemble(checkpoint(converter, A, sample.config, tensors), [Hop(converter, A)], OPTIONS)
    source = checkpoint(converter, B, there.legs[-1].configs.target, taken(there.tensors))
    back = assemble(source, [Hop(converter, B)], OPTIONS)
    assert contents(back.tensors) == through_side_b(tensors, holding, written(sample, JOINED))


@every_model
@examples(15)
@given(data=st.data())
def test_names_of_memory_are_read_with_the_others_among_them(name: str, data: st.DataObject) -> None:
    converter, sample = CONVERTERS[name], data.draw(samples(CONVERTERS[name]))
    usual = FLOAT32.held(held(sample), A, beside=True)
    # Of two aliases that fit, either one is right.
    chosen = {key: data.draw(st.sampled_from([key, *other_names(key)]), label=key) for key in sorted(usual)}
    renamed = {chosen[key]: ref for key, ref in usual.items()}
    found, expected = (
        contents(assemble(checkpoint(converter, A, sample.config, each), [Hop(converter, A)], OPTIONS).tensors)
        for each in (renamed, usual)
    )
    assert found == expected


def other_names(key: str) -> list[str]:
    """What a tensor is called in memory, and in files of models that were built in transformers 5."""
    if key.startswith("vision_tower.vision_model."):
        inner = key.removeprefix("vision_tower.vision_model.")
        return [f"vision_tower.{inner}", f"model.vision_tower.{inner}", f"model.{key}"]
    if key.startswith("language_model.model."):
        return ["model.language_model." + key.removeprefix("language_model.model.")]
    if key.startswith("language_model."):
        return [key.removeprefix("language_model.")]
    assert key.startswith("multi_modal_projector.")
    return [f"model.{key}"]
