"""Rotary scaling: three spellings of none, four types with all their fields, and the rest refused by name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from mmconvert.errors import InputRefused

if TYPE_CHECKING:
    from tests.converters.conftest import Configs

LLAMA = {"model_type": "llama", "max_position_embeddings": 8192}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
LONGROPE = {
    "rope_type": "longrope",
    "factor": 4.0,
    "original_max_position_embeddings": 2048,
    "short_factor": [1.0] * 64,
    "long_factor": [2.0] * 64,
}


def section(llama: Configs, scaling: object) -> dict[str, Any]:
    """The CS fields that a `rope_scaling` becomes."""
    whole = llama.to_cs({**LLAMA, "rope_scaling": scaling})
    return {name.removeprefix("pos_scaling_"): value for name, value in whole.items() if name.startswith("pos_scaling")}


def around(llama: Configs, scaling: object) -> Any:
    return llama.around({**LLAMA, "rope_scaling": scaling})["rope_scaling"]


@pytest.mark.parametrize("scaling", [None, {"rope_type": "default"}, {"type": "linear", "factor": 1.0}])
def test_no_scaling_has_one_canonical_form(llama: Configs, scaling: object) -> None:
    assert section(llama, scaling) == {"factor": 1.0}
    assert around(llama, scaling) is None


@pytest.mark.parametrize("kind", ["type", "rope_type"])
def test_a_linear_factor_comes_back_in_the_spelling_that_every_reader_knows(llama: Configs, kind: str) -> None:
    scaling = {kind: "linear", "factor": 2.0}
    assert section(llama, scaling) == {"factor": 2.0, "type": "linear"}
    assert around(llama, scaling) == {"type": "linear", "factor": 2.0}


@pytest.mark.parametrize("kind", ["type", "rope_type"])
def test_llama3_keeps_all_its_fields(llama: Configs, kind: str) -> None:
    scaling = {kind: "llama3", **LLAMA3}
    extra = {name: value for name, value in LLAMA3.items() if name != "factor"}
    assert section(llama, scaling) == {"factor": 8.0, "type": "llama3", "extra_args": extra}
    assert around(llama, scaling) == {"rope_type": "llama3", **LLAMA3}


@pytest.mark.parametrize(
    "extras", [{}, {"beta_fast": 16.0, "beta_slow": 2.0}, {"attention_factor": 1.25}, {"attention_factor": 1.0}]
)
def test_yarn_keeps_its_extras(llama: Configs, extras: dict[str, float]) -> None:
    assert around(llama, {**YARN, **extras}) == {**YARN, **extras}


def test_yarn_s_attention_factor_is_a_constant_mscale_in_cs(llama: Configs) -> None:
    extra = section(llama, {**YARN, "attention_factor": 1.25})["extra_args"]
    assert extra == {"mscale_a": 0.0, "mscale_b": 1.25, "original_max_position_embeddings": 2048}


def test_yarn_without_its_original_length_means_the_whole_length(llama: Configs) -> None:
    extra = section(llama, {"rope_type": "yarn", "factor": 4.0})["extra_args"]
    assert extra == {"original_max_position_embeddings": 8192}


@pytest.mark.parametrize("extras", [{"mscale": 0.7}, {"mscale_all_dim": 1.0}])
def test_yarn_fields_that_cs_does_not_read_are_refused_by_name(llama: Configs, extras: dict[str, float]) -> None:
    with pytest.raises(InputRefused, match=next(iter(extras))):
        section(llama, {**YARN, **extras})


@pytest.mark.parametrize("extras", [{"mscale_a": 0.2}, {"mscale_a": 0.0}, {"extrapolation_factor": 0.5}])
def test_yarn_settings_of_cs_that_hugging_face_cannot_say_are_refused(llama: Configs, extras: dict[str, float]) -> None:
    whole = llama.to_cs({**LLAMA, "rope_scaling": YARN})
    whole["pos_scaling_extra_args"] = {**whole["pos_scaling_extra_args"], **extras}
    with pytest.raises(InputRefused, match=next(iter(extras))):
        llama.to_hf(whole)


def test_yarn_defaults_of_cs_need_no_words(llama: Configs) -> None:
    whole = llama.to_cs({**LLAMA, "rope_scaling": YARN})
    defaults = {"mscale_a": 0.1, "mscale_b": 1.0, "extrapolation_factor": 1.0}
    said = {
        **whole,
        "pos_scaling_type": "YaRN",
        "pos_scaling_extra_args": {**whole["pos_scaling_extra_args"], **defaults},
    }
    assert llama.to_hf(said) == llama.to_hf(whole)


@pytest.mark.parametrize("name", ["longrope", "su"])
def test_longrope_keeps_its_fields_and_comes_with_advice(llama: Configs, name: str) -> None:
    scaling = {**LONGROPE, "rope_type": name}
    assert around(llama, scaling) == LONGROPE
    source = llama.translate({**LLAMA, "rope_scaling": scaling}).source
    (advice,) = llama.converter.advice(source, {})
    assert "long_factor" in advice


def test_longrope_s_factor_follows_from_the_lengths(llama: Configs) -> None:
    scaling = {name: value for name, value in LONGROPE.items() if name != "factor"}
    assert section(llama, scaling)["factor"] == 4.0


def test_other_types_need_no_advice(llama: Configs) -> None:
    assert not llama.converter.advice(llama.translate({**LLAMA, "rope_scaling": YARN}).source, {})


@pytest.mark.parametrize("kind", ["dynamic", "wobbly", ["yarn"]])
def test_other_types_are_refused_by_name(llama: Configs, kind: object) -> None:
    with pytest.raises(InputRefused, match=re.escape(f"{kind!r} has no CS counterpart")):
        section(llama, {"rope_type": kind, "factor": 2.0})


@pytest.mark.parametrize("missing", ["factor", "low_freq_factor", "high_freq_factor"])
def test_a_scaling_without_a_needed_field_is_refused_by_name(llama: Configs, missing: str) -> None:
    scaling = {"rope_type": "llama3", **LLAMA3}
    del scaling[missing]
    with pytest.raises(InputRefused, match=f"'llama3' lacks {missing}"):
        section(llama, scaling)


@pytest.mark.parametrize("scaling", [None, {"rope_type": "llama3", **LLAMA3}])
def test_rope_parameters_of_transformers_5_say_the_same(llama: Configs, scaling: dict[str, Any] | None) -> None:
    new = {"rope_parameters": {**(scaling or {"rope_type": "default"}), "rope_theta": 5e5}}
    old = {"rope_scaling": scaling, "rope_theta": 5e5}
    assert llama.to_cs({**LLAMA, **new}) == llama.to_cs({**LLAMA, **old})


@pytest.mark.parametrize("kind", [{"rope_type": "default"}, {"rope_type": "llama3", **LLAMA3}])
def test_a_partial_rotation_inside_rope_parameters_is_refused_by_name(llama: Configs, kind: dict[str, Any]) -> None:
    with pytest.raises(InputRefused, match=r"partial_rotary_factor is 0\.5"):
        llama.to_cs({**LLAMA, "rope_parameters": {**kind, "rope_theta": 1e4, "partial_rotary_factor": 0.5}})


def test_a_whole_rotation_inside_rope_parameters_changes_nothing(llama: Configs) -> None:
    said = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}
    assert llama.to_cs({**LLAMA, "rope_parameters": said}) == llama.to_cs(LLAMA)


@pytest.mark.parametrize("name", ["rope_parameters", "rope_scaling"])
def test_a_field_that_no_type_reads_is_refused_by_name(llama: Configs, name: str) -> None:
    with pytest.raises(InputRefused, match="holds factor, but no type that would read it"):
        llama.to_cs(
            {**LLAMA, name: {"factor": 4.0, "rope_theta": 1e4} if name == "rope_parameters" else {"factor": 4.0}}
        )


@pytest.mark.parametrize("name", ["rope_parameters", "rope_scaling"])
def test_parameters_by_kind_of_layer_are_refused_by_name(llama: Configs, name: str) -> None:
    layers = {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    with pytest.raises(InputRefused, match="full_attention"):
        llama.to_cs({**LLAMA, name: layers})


@pytest.mark.parametrize("wrong", ["8.0", True, [8.0], {"x": 1}])
@pytest.mark.parametrize("field", ["factor", "low_freq_factor", "original_max_position_embeddings"])
def test_a_scaling_by_what_is_no_number_is_refused_by_name(llama: Configs, field: str, wrong: object) -> None:
    scaling = {"rope_type": "llama3", **LLAMA3, field: wrong}
    with pytest.raises(InputRefused, match=re.escape(f"rope_scaling.{field} is {wrong!r}, which is no number")):
        section(llama, scaling)


@pytest.mark.parametrize("factors", [[1.0, "2.0"], [], "1.0"])
def test_factors_that_are_no_numbers_are_refused_by_name(llama: Configs, factors: object) -> None:
    with pytest.raises(InputRefused, match=r"rope_scaling\.long_factor is .*, which is no number"):
        section(llama, {**LONGROPE, "long_factor": factors})


def test_a_base_that_is_no_number_is_refused_by_name(llama: Configs) -> None:
    with pytest.raises(InputRefused, match="rope_theta: '1e4' is not of type 'number'"):
        llama.to_cs({**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": "1e4"}})
