"""LLaMA configs: what is absent means LlamaConfig's default, and what was said comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mmconvert import registry

if TYPE_CHECKING:
    from tests.converters.conftest import Configs

CODE_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 16384,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "vocab_size": 32016,
}
VICUNA = {
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_key_value_heads": 32,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-05,
    "torch_dtype": "float16",
}
LLAMA_3_1 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "vocab_size": 128256,
}
LLAMA_3_2_1B = {
    **LLAMA_3_1,
    "head_dim": 64,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "rope_scaling": {**LLAMA_3_1["rope_scaling"], "factor": 32.0},  # type: ignore[dict-item]
    "tie_word_embeddings": True,
}


def test_a_config_of_nothing_but_its_type_has_the_class_defaults(llama: Configs) -> None:
    section = llama.to_cs({"model_type": "llama"})
    assert section["layer_norm_epsilon"] == 1e-6
    assert section["rope_theta"] == 10000.0
    assert section["attention_module"] == "aiayn_attention"
    assert (section["hidden_size"], section["num_heads"], section["num_hidden_layers"]) == (4096, 32, 32)
    assert (section["filter_size"], section["vocab_size"], section["max_position_embeddings"]) == (11008, 32000, 2048)
    assert section["share_embedding_weights"] is False


@pytest.mark.parametrize("config", [CODE_LLAMA, VICUNA, LLAMA_3_1, LLAMA_3_2_1B])
def test_configs_of_the_family_survive_the_way_there_and_back(llama: Configs, config: dict[str, Any]) -> None:
    assert llama.canonical(llama.around(config)) == llama.canonical(config)


def test_code_llama_keeps_its_base_and_its_vocabulary(llama: Configs) -> None:
    section = llama.to_cs(CODE_LLAMA)
    assert (section["rope_theta"], section["vocab_size"]) == (1e6, 32016)


@pytest.mark.parametrize("config", [{"model_type": "llama", "sliding_window": 512}, {"model_type": "llama"}])
def test_a_llama_has_no_sliding_window_whatever_a_stray_field_says(llama: Configs, config: dict[str, Any]) -> None:
    section = llama.to_cs(config)
    assert "attention_sliding_window_length" not in section
    assert "sliding_window" not in llama.to_hf(section)


@pytest.mark.parametrize("config", [{"model_type": "llama"}, {"architectures": ["LlamaForCausalLM"]}])
def test_a_llama_is_known_by_its_type_or_its_architecture(llama: Configs, config: dict[str, Any]) -> None:
    known = {each.model for each in registry.converters() if "" in each.a.parts and each.a.parts[""](config)}
    assert known == {"llama"}


def test_a_nameless_section_is_a_llama_by_its_shape(llama: Configs) -> None:
    section = llama.to_cs({"model_type": "llama"}, "2.3")
    assert "name" not in section
    known = {each.model for each in registry.converters() if not each.b.by_name and each.b.parts[""](section)}
    assert known == {"llama"}
