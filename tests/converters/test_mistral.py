"""Mistral configs: a LLaMA with a sliding window, where absent is not null."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mmconvert import Options, api, registry

if TYPE_CHECKING:
    from tests.converters.conftest import Configs, Draft, Reader, Workshop

MISTRAL = {"model_type": "mistral"}
ZEPHYR = {
    "architectures": ["MistralForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pad_token_id": 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "vocab_size": 32000,
}


def test_absent_fields_have_the_class_defaults(mistral: Configs) -> None:
    section = mistral.to_cs(MISTRAL)
    assert section["extra_attention_params"] == {"num_kv_groups": 8}
    assert section["attention_sliding_window_length"] == 4096


def test_null_is_not_absent(mistral: Configs) -> None:
    section = mistral.to_cs({**MISTRAL, "sliding_window": None, "num_key_value_heads": None})
    assert "attention_sliding_window_length" not in section
    assert section["attention_module"] == "aiayn_attention"
    back = mistral.to_hf(section)
    assert back["sliding_window"] is None
    assert back["num_key_value_heads"] == 32


@pytest.mark.parametrize("config", [ZEPHYR, {**ZEPHYR, "sliding_window": None, "rope_theta": 1e6}])
def test_configs_of_the_family_survive_the_way_there_and_back(mistral: Configs, config: dict[str, Any]) -> None:
    assert mistral.canonical(mistral.around(config)) == mistral.canonical(config)


def test_a_nameless_section_is_a_mistral_by_its_window(mistral: Configs) -> None:
    section = mistral.to_cs(MISTRAL, "2.3")
    assert "name" not in section
    known = {each.model for each in registry.converters() if each.b.parts[""](section)}
    assert known == {"mistral"}


def test_one_without_a_window_keeps_its_name_in_releases_that_say_none(
    workshop: Workshop, gqa: Draft, facts: Reader
) -> None:
    gqa.set(model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=None)
    old = workshop.convert(gqa.path, "cs-2.3")
    assert api.verify(gqa.path, old).problems == []
    for source in (old, workshop.convert(old, "cs-2.10", Options(container="mdl")), workshop.convert(old, "cs-2.2")):
        back = workshop.convert(source, "hf")
        config = workshop.edit(back).config()
        assert (config["model_type"], config["sliding_window"]) == ("mistral", None)
        assert facts(back) == facts(gqa.path)


def test_a_mdl_alone_says_it_too(workshop: Workshop, gqa: Draft) -> None:
    gqa.set(model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=None)
    old = workshop.convert(gqa.path, "cs-2.3", Options(container="mdl"))
    (old / "mmconvert.json").unlink()
    (old / "config.yaml").unlink()
    assert api.inspect(old / "model.mdl").model == "mistral"
