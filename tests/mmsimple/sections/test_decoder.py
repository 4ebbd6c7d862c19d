"""Decoders in a section: which values go together, and what those that are not there mean."""

from __future__ import annotations

from typing import Any

import pytest

from mmsimple import sections
from mmsimple.config import LlamaConfig
from tests.mmsimple.sections.examples import FILE, LLAMA, assert_refused, changed

BARE: dict[str, Any] = {
    "name": "llama",
    "norm_type": "rmsnorm",
    "position_embedding_type": "rotary",
    "nonlinearity": "swiglu",
}
YARN = {"original_max_position_embeddings": 32, "beta_fast": 32, "beta_slow": 1, "mscale_a": 0.1, "mscale_b": 1}
FACTORS = [1.0] * 6
SCALINGS: dict[str, dict[str, Any]] = {
    "llama3": {"low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 32},
    "yarn": {**YARN, "extrapolation_factor": 1.0},
    "longrope": {"short_factor": FACTORS, "long_factor": FACTORS, "original_max_position_embeddings": 32},
}


def read(section: dict[str, Any], model: str = "llama") -> LlamaConfig:
    config = sections.read(model, section, FILE)
    assert isinstance(config, LlamaConfig)
    return config


def test_what_is_left_out_is_the_class_default() -> None:
    assert read(BARE) == LlamaConfig(
        vocab_size=50257,
        hidden_size=768,
        num_hidden_layers=12,
        num_heads=12,
        num_kv_heads=12,
        filter_size=3072,
        rotary_dim=64,
        max_position_embeddings=1024,
    )


def test_no_rotary_dim_means_the_head_size() -> None:
    assert read({**LLAMA, "rotary_dim": None}).rotary_dim == 12


@pytest.mark.parametrize("rotary_dim", [5, 14])
def test_a_rotary_dim_that_is_odd_or_more_than_a_head_is_refused(rotary_dim: int) -> None:
    said = f"rotary_dim is {rotary_dim}: it must be even and at most the head size 12"
    assert_refused("llama", {**LLAMA, "rotary_dim": rotary_dim}, said)


def test_a_head_size_that_is_odd_is_refused_where_all_of_it_would_be_rotated() -> None:
    section = {**LLAMA, "rotary_dim": None, "hidden_size": 12, "num_heads": 4}
    assert_refused("llama", section, "rotary_dim is the head size 3: it must be even")


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    section = {**LLAMA, "hidden_size": 50}
    assert_refused("llama", section, "hidden_size is 50, which is not a multiple of num_heads 4")


@pytest.mark.parametrize(("groups", "kv_heads"), [(1, 1), (2, 2), (4, 4)])
def test_groups_are_key_value_heads(groups: int, kv_heads: int) -> None:
    section = changed(LLAMA, attention_module="multiquery_attention", extra_attention_params={"num_kv_groups": groups})
    assert read(section).num_kv_heads == kv_heads


@pytest.mark.parametrize("groups", [3, 0, 8, True, "2", None])
def test_groups_that_do_not_divide_the_heads_are_refused(groups: Any) -> None:
    section = changed(LLAMA, attention_module="multiquery_attention", extra_attention_params={"num_kv_groups": groups})
    assert_refused("llama", section, "extra_attention_params.num_kv_groups is ", "divides num_heads 4")


def test_multiquery_attention_must_say_its_groups() -> None:
    section = changed(LLAMA, attention_module="multiquery_attention", extra_attention_params={})
    assert_refused("llama", section, "extra_attention_params.num_kv_groups is null")


def test_groups_of_plain_attention_are_refused() -> None:
    section = changed(LLAMA, attention_module="aiayn_attention", extra_attention_params={"num_kv_groups": 2})
    assert_refused("llama", section, "extra_attention_params.num_kv_groups is 2", "multiquery_attention")


@pytest.mark.parametrize("field", ["extra_attention_params", "extra_ffn_params"])
def test_extra_params_hold_nothing_else(field: str) -> None:
    section = {**LLAMA, field: {"num_kv_groups": 2, "static_dual_expert": False} | {"memory": 1}}
    other = "static_dual_expert" if field == "extra_attention_params" else "num_kv_groups"
    assert_refused("llama", section, f"{field}.{other} is nothing that mmsimple computes")


def test_dual_experts_are_a_switch() -> None:
    assert read({**LLAMA, "extra_ffn_params": {"static_dual_expert": True}}).static_dual_expert
    assert_refused("llama", {**LLAMA, "extra_ffn_params": {"static_dual_expert": 1}}, "static_dual_expert is 1")


@pytest.mark.parametrize("name", ["embd_pdrop", "embedding_dropout_rate"])
def test_dropout_of_the_embedding_has_two_names(name: str) -> None:
    assert read({**BARE, name: 0.25}).embedding_dropout_rate == 0.25


def test_two_rates_for_the_embedding_are_refused() -> None:
    section = {**BARE, "embd_pdrop": 0.25, "embedding_dropout_rate": 0.5}
    assert_refused("llama", section, "embd_pdrop 0.25 and embedding_dropout_rate 0.5 are two names of one field")
    assert read({**section, "embd_pdrop": 0.5}).embedding_dropout_rate == 0.5


def test_rates_that_are_null_are_that_of_all_dropout() -> None:
    names = ("embd_pdrop", "embedding_dropout_rate", "attention_dropout_rate")
    config = read({**BARE, "dropout_rate": 0.5, **dict.fromkeys(names)})
    assert (config.embedding_dropout_rate, config.attention_dropout_rate) == (0.5, 0.5)


def test_a_window_reads_and_one_of_nothing_is_refused() -> None:
    assert read({**LLAMA, "attention_sliding_window_length": 1}).attention_sliding_window_length == 1
    assert_refused(
        "llama", {**LLAMA, "attention_sliding_window_length": 0}, "attention_sliding_window_length is 0: a token sees"
    )


@pytest.mark.parametrize("kind", SCALINGS)
def test_a_scaling_reads_with_its_arguments(kind: str) -> None:
    section = changed(LLAMA, pos_scaling_type=kind, pos_scaling_factor=2, pos_scaling_extra_args=SCALINGS[kind])
    config = read(section)
    assert (config.pos_scaling_type, config.pos_scaling_factor) == (kind, 2.0)
    assert config.pos_scaling_extra_args == SCALINGS[kind]


def test_yarn_has_two_spellings() -> None:
    assert read(changed(LLAMA, pos_scaling_type="YaRN", pos_scaling_extra_args=YARN)).pos_scaling_type == "yarn"


@pytest.mark.parametrize(
    ("kind", "missing"),
    [("yarn", "original_max_position_embeddings"), ("llama3", "low_freq_factor"), ("longrope", "short_factor")],
)
def test_an_argument_that_a_scaling_lacks_is_named(kind: str, missing: str) -> None:
    extra = {name: value for name, value in SCALINGS[kind].items() if name != missing}
    section = changed(LLAMA, pos_scaling_type=kind, pos_scaling_extra_args=extra)
    assert_refused("llama", section, f"pos_scaling_extra_args lacks {missing}, which pos_scaling_type {kind} needs")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("linear", "beta_fast"), ("yarn", "attention_factor"), ("longrope", "attention_factor"), ("llama3", "beta_fast")],
)
def test_an_argument_that_a_scaling_does_not_read_is_refused(kind: str, name: str) -> None:
    extra = {**SCALINGS.get(kind, {}), name: 1.0}
    section = changed(LLAMA, pos_scaling_type=kind, pos_scaling_extra_args=extra)
    assert_refused("llama", section, f"pos_scaling_extra_args.{name} is nothing that mmsimple computes")


@pytest.mark.parametrize(
    ("kind", "name", "value", "said"),
    [
        ("yarn", "beta_fast", "32", "it must be a number above 0"),
        ("yarn", "beta_slow", 0, "it must be a number above 0"),
        ("yarn", "mscale_a", True, "it must be a number"),
        ("yarn", "original_max_position_embeddings", 1, "it must be a number above 1"),
        ("llama3", "low_freq_factor", float("nan"), "it must be a number above 0"),
        ("llama3", "high_freq_factor", 10**400, "it must be a number above 0"),
        ("longrope", "long_factor", [1.0] * 5, "a list of 6 numbers above 0, one for each rotated pair"),
        ("longrope", "short_factor", 1.0, "a list of 6 numbers above 0"),
        ("longrope", "short_factor", [*FACTORS[1:], 0], "a list of 6 numbers above 0"),
    ],
)
def test_an_argument_of_another_kind_is_refused(kind: str, name: str, value: Any, said: str) -> None:
    section = changed(LLAMA, pos_scaling_type=kind, pos_scaling_extra_args={**SCALINGS[kind], name: value})
    assert_refused("llama", section, f"pos_scaling_extra_args.{name} is ", said)


def test_llama3_needs_a_span_between_its_factors() -> None:
    extra = {**SCALINGS["llama3"], "low_freq_factor": 4}
    section = changed(LLAMA, pos_scaling_type="llama3", pos_scaling_extra_args=extra)
    assert_refused("llama", section, "low_freq_factor 4 must be below high_freq_factor 4")


@pytest.mark.parametrize("theta", [1, 1.0, 0.5])
def test_yarn_needs_pairs_that_turn_at_different_rates(theta: float) -> None:
    section = changed(LLAMA, pos_scaling_type="yarn", pos_scaling_extra_args=SCALINGS["yarn"], rope_theta=theta)
    assert_refused("llama", section, f"rope_theta is {theta}: it must be above 1 for pos_scaling_type yarn")
    assert read({**LLAMA, "rope_theta": theta}).rope_theta == theta


@pytest.mark.parametrize(("betas", "fast", "slow"), [({"beta_fast": 0.5}, 0.5, 1), ({"beta_slow": 33}, 32, 33)])
def test_yarn_needs_a_span_between_its_betas_or_none(betas: dict[str, float], fast: float, slow: float) -> None:
    extra = {"original_max_position_embeddings": 32, **betas}
    section = changed(LLAMA, pos_scaling_type="yarn", pos_scaling_extra_args=extra)
    assert_refused("llama", section, f"pos_scaling_extra_args: beta_fast {fast} must be at least beta_slow {slow}")
    section = changed(section, pos_scaling_extra_args={**extra, "beta_fast": slow, "beta_slow": slow})
    assert read(section).pos_scaling_extra_args["beta_fast"] == slow


@pytest.mark.parametrize("size", [10_001, 1e38, 1e300])
def test_a_range_of_fresh_weights_that_makes_them_infinite_is_refused(size: float) -> None:
    assert_refused("llama", {**LLAMA, "initializer_range": size}, f"initializer_range is {size}: weights so far from 0")


@pytest.mark.parametrize("size", [0, 1e4])
def test_a_range_of_fresh_weights_may_be_0_or_large(size: float) -> None:
    assert read({**LLAMA, "initializer_range": size}).initializer_range == size


@pytest.mark.parametrize("field", ["extra_attention_params", "extra_ffn_params", "pos_scaling_extra_args"])
def test_extra_params_of_odd_names_are_told_of_in_one_short_line(field: str) -> None:
    assert_refused(
        "llama", {**LLAMA, field: {"x\n" * 99: 1}}, f"{field}.x\\nx\\n", "x\\n is nothing that mmsimple computes"
    )


def test_a_factor_of_nothing_is_refused() -> None:
    assert_refused("llama", {**LLAMA, "pos_scaling_factor": 0}, "pos_scaling_factor")


def test_a_mistral_is_a_decoder_with_a_window() -> None:
    section = {**LLAMA, "name": "mistral", "attention_sliding_window_length": 8}
    config = read(section, "mistral")
    assert config.attention_sliding_window_length == 8
    assert sections.write(config)[0] == "mistral"
