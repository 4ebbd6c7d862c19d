"""What LLaMA and Mistral share: heads, biases, activations, and what CS or Hugging Face cannot say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mmconvert.errors import InputRefused

if TYPE_CHECKING:
    from tests.converters.conftest import Configs

LLAMA = {"model_type": "llama"}


@pytest.mark.parametrize(
    ("kv_heads", "module", "extra"),
    [
        (32, "aiayn_attention", None),
        (8, "multiquery_attention", {"num_kv_groups": 8}),
        (1, "multiquery_attention", {"num_kv_groups": 1}),
    ],
)
def test_key_value_heads_are_said_both_ways(llama: Configs, kv_heads: int, module: str, extra: object) -> None:
    section = llama.to_cs({**LLAMA, "num_key_value_heads": kv_heads})
    assert section["attention_module"] == module
    assert section.get("extra_attention_params") == extra
    assert llama.to_hf(section)["num_key_value_heads"] == kv_heads


def test_as_many_groups_as_heads_are_multi_head_attention(llama: Configs) -> None:
    section = llama.to_cs(LLAMA)
    section |= {"attention_module": "multiquery_attention", "extra_attention_params": {"num_kv_groups": 32}}
    assert llama.to_hf(section)["num_key_value_heads"] == 32


def test_key_value_heads_must_divide_the_heads(llama: Configs) -> None:
    with pytest.raises(InputRefused, match="num_attention_heads 32 is not a multiple of num_key_value_heads 5"):
        llama.to_cs({**LLAMA, "num_key_value_heads": 5})


@pytest.mark.parametrize("extra", [{}, {"num_kv_groups": True}, {"num_kv_groups": 0}])
def test_multi_query_attention_must_say_its_groups(llama: Configs, extra: dict[str, Any]) -> None:
    section = {**llama.to_cs(LLAMA), "attention_module": "multiquery_attention", "extra_attention_params": extra}
    with pytest.raises(InputRefused, match=r"num_kv_groups is .*: how many key/value heads"):
        llama.to_hf(section)


@pytest.mark.parametrize("heads", [2.0, True, "2", 0])
def test_heads_that_are_no_number_are_refused_under_their_own_name(llama: Configs, heads: Any) -> None:
    with pytest.raises(InputRefused, match="num_attention_heads"):
        llama.to_cs({**LLAMA, "num_attention_heads": heads})


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("mlp", [False, True])
def test_biases_are_said_both_ways(llama: Configs, attention: bool, mlp: bool) -> None:
    section = llama.to_cs({**LLAMA, "attention_bias": attention, "mlp_bias": mlp})
    assert section["use_projection_bias_in_attention"] is attention
    assert section["use_ffn_bias_in_attention"] is attention
    assert section["use_ffn_bias"] is mlp
    back = llama.to_hf(section)
    assert (back["attention_bias"], back["mlp_bias"]) == (attention, mlp)


def test_biases_of_one_half_of_attention_are_refused(llama: Configs) -> None:
    with pytest.raises(InputRefused, match="use_projection_bias_in_attention is True"):
        llama.to_hf({**llama.to_cs(LLAMA), "use_projection_bias_in_attention": True})


@pytest.mark.parametrize("field", ["attention_bias", "mlp_bias"])
def test_mistral_has_no_biases_whatever_a_stray_field_says(mistral: Configs, field: str) -> None:
    section = mistral.to_cs({"model_type": "mistral", field: True})
    assert not any(section[name] for name in section if name.startswith("use_") and "bias" in name)


@pytest.mark.parametrize(("theirs", "ours"), [("silu", "swiglu"), ("relu", "reglu"), ("gelu", "geglu")])
def test_activations_are_gated_in_cs(llama: Configs, theirs: str, ours: str) -> None:
    section = llama.to_cs({**LLAMA, "hidden_act": theirs})
    assert section["nonlinearity"] == ours
    assert llama.to_hf(section)["hidden_act"] == theirs


def test_tied_embeddings_are_said_both_ways(llama: Configs) -> None:
    section = llama.to_cs({**LLAMA, "tie_word_embeddings": True})
    assert section["share_embedding_weights"] is True
    assert llama.to_hf(section)["tie_word_embeddings"] is True


@pytest.mark.parametrize(
    "fields",
    [
        {"head_dim": 64},
        {"partial_rotary_factor": 0.5},
        {"quantization_config": {"quant_method": "gptq"}},
        {"hidden_act": "gelu_new"},
        {"hidden_size": 4095},
    ],
)
def test_what_cs_has_no_words_for_is_refused_by_name(llama: Configs, fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(InputRefused, match=name):
        llama.to_cs({**LLAMA, **fields})


@pytest.mark.parametrize("fields", [{"head_dim": None}, {"head_dim": 128}, {"partial_rotary_factor": 1.0}])
def test_fields_that_say_the_usual_change_nothing(llama: Configs, fields: dict[str, Any]) -> None:
    assert llama.to_cs({**LLAMA, **fields}) == llama.to_cs(LLAMA)


@pytest.mark.parametrize(
    "fields",
    [
        {"attention_logit_softcapping": 30.0},
        {"attention_qk_norm_layer": "rmsnorm"},
        {"attention_type": "dot_product"},
        {"embedding_layer_norm": True},
        {"embeddings_scale": 2.0},
        {"final_logit_softcapping": 30.0},
        {"norm_type": "layernorm"},
        {"position_embedding_type": "learned"},
        {"rotary_dim": 64},
        {"use_bias_in_output": True},
    ],
)
def test_what_hugging_face_has_no_words_for_is_refused_by_name(llama: Configs, fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(InputRefused, match=name):
        llama.to_hf({**llama.to_cs(LLAMA), **fields})


@pytest.mark.parametrize("name", ["dropout_rate", "attention_dropout_rate", "embedding_dropout_rate", "embd_pdrop"])
def test_dropout_does_not_matter_on_the_way_back(llama: Configs, name: str) -> None:
    section = llama.to_cs(LLAMA)
    assert llama.to_hf({**section, name: 0.3}) == llama.to_hf(section)


def test_a_field_of_no_class_is_refused_by_name(llama: Configs) -> None:
    with pytest.raises(InputRefused, match="colour"):
        llama.to_hf({**llama.to_cs(LLAMA), "colour": "blue"})


def test_what_older_converters_write_and_no_class_reads_is_dropped_with_a_reason(llama: Configs) -> None:
    section = {**llama.to_cs(LLAMA), "norm_first": True, "use_ff_layer1_dropout": False}
    translation = llama.converter.configs.translate("b", section)
    assert {each.subject for each in translation.dropped} == {"norm_first", "use_ff_layer1_dropout"}
    assert all(each.why for each in translation.dropped)


@pytest.mark.parametrize(
    "fields",
    [
        {"extra_ffn_params": None},
        {"extra_ffn_params": {}},
        {"extra_ffn_params": {"static_dual_expert": False}},
        {"extra_attention_params": None},
        {"extra_attention_params": {}},
        {"rotary_dim": None},
    ],
)
def test_other_spellings_of_the_usual_are_read(llama: Configs, fields: dict[str, Any]) -> None:
    section = llama.to_cs(LLAMA)
    assert llama.to_hf({**section, **fields}) == llama.to_hf(section)


@pytest.mark.parametrize("extra", [{"static_dual_expert": True}, {"other": 1}])
def test_a_second_expert_is_refused_by_name(llama: Configs, extra: dict[str, Any]) -> None:
    with pytest.raises(InputRefused, match=r"extra_ffn_params is .*one expert, not two"):
        llama.to_hf({**llama.to_cs(LLAMA), "extra_ffn_params": extra})


@pytest.mark.parametrize(
    "name",
    [
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "head_dim", "max_position_embeddings"),
    ],
)
@pytest.mark.parametrize("wrong", [2.0, True, "2"])
def test_a_size_that_is_no_integer_is_refused_by_name(llama: Configs, name: str, wrong: object) -> None:
    with pytest.raises(InputRefused, match=rf"\b{name}: {wrong!r} is not of type 'integer'"):
        llama.to_cs({**LLAMA, "num_key_value_heads": 32, "head_dim": 128, name: wrong})


@pytest.mark.parametrize(
    "name", ["vocab_size", "hidden_size", "filter_size", "num_hidden_layers", "num_heads", "rotary_dim"]
)
def test_a_size_of_cs_that_is_no_integer_is_refused_by_name(llama: Configs, name: str) -> None:
    with pytest.raises(InputRefused, match=rf"\b{name}: 2\.0 is not of type 'integer'"):
        llama.to_hf({**llama.to_cs(LLAMA), name: 2.0})


@pytest.mark.parametrize("groups", [2.0, "2", None])
def test_a_number_of_groups_that_is_no_integer_is_refused_by_name(llama: Configs, groups: object) -> None:
    section = {**llama.to_cs({**LLAMA, "num_key_value_heads": 8}), "extra_attention_params": {"num_kv_groups": groups}}
    with pytest.raises(InputRefused, match="num_kv_groups"):
        llama.to_hf(section)
