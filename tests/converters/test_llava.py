"""LLaVA against CS `llava`: the words that only this model uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mmconvert import Hints, api
from mmconvert.errors import InputRefused

if TYPE_CHECKING:
    from tests.converters.conftest import Configs, Reader, Workshop

LlavaConfig = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(("layer", "index"), [(-2, -2), (-1, -1), (1, 0), (3, 2)])
def test_the_selected_layer_counts_without_the_embeddings(
    cs_llava: Configs, llava_config: LlavaConfig, layer: int, index: int
) -> None:
    config = llava_config(mm_vision_select_layer=layer)
    section = cs_llava.to_cs(config)
    assert section["image_feature_select_layer_idx"] == index
    assert cs_llava.to_hf(section)["text_model"]["mm_vision_select_layer"] == layer


@pytest.mark.parametrize("layer", [0, -4, 4])
def test_a_layer_that_cannot_be_said_is_refused_with_the_range(
    cs_llava: Configs, llava_config: LlavaConfig, layer: int
) -> None:
    with pytest.raises(InputRefused, match=r"valid are -3 to -1 and 1 to 3"):
        cs_llava.to_cs(llava_config(mm_vision_select_layer=layer))


def test_no_layer_has_no_llava_spelling_and_one_left_out_is_the_last(
    cs_llava: Configs, llava_config: LlavaConfig
) -> None:
    section = cs_llava.to_cs(llava_config())
    with pytest.raises(InputRefused, match="image_feature_select_layer_idx is absent"):
        cs_llava.to_hf({**section, "image_feature_select_layer_idx": None})
    del section["image_feature_select_layer_idx"]
    assert cs_llava.to_hf(section)["text_model"]["mm_vision_select_layer"] == -1


@pytest.mark.parametrize(("tune", "freeze"), [(True, ["^image_model", "^text_model"]), (False, ["^image_model"])])
def test_what_is_frozen_comes_back(cs_llava: Configs, llava_config: LlavaConfig, tune: bool, freeze: list[str]) -> None:
    section = cs_llava.to_cs(llava_config(tune_mm_mlp_adapter=tune))
    assert section["freeze"] == freeze
    assert cs_llava.to_hf(section)["text_model"]["tune_mm_mlp_adapter"] is tune


def test_images_begin_after_the_first_token(cs_llava: Configs, llava_config: LlavaConfig) -> None:
    section = cs_llava.to_cs(llava_config())
    assert section["image_start_idx"] == 1
    with pytest.raises(InputRefused, match="image_start_idx is 3"):
        cs_llava.to_hf({**section, "image_start_idx": 3})


def test_two_folders_are_the_simple_model_unless_the_user_says_llava(golden: Path) -> None:
    source = golden / "inputs/llava"
    assert api.inspect(source).model == "mmsimple-llava"
    assert api.inspect(source, hints=Hints(model="llava")).model == "llava"


def test_both_multimodal_models_hold_the_same_tensors_under_their_own_names(
    golden: Path, workshop: Workshop, facts: Reader
) -> None:
    source = golden / "llava/tiny_src_gqa"
    ours = facts(workshop.convert(source, "cs", model="llava"))
    simple = facts(workshop.convert(source, "cs"))
    renamed = {
        key.replace("image_model.image_model_list.0.0.", "image_model.").replace(
            "image_model.projection.", "projector_image_model."
        ): fact
        for key, fact in simple.items()
    }
    assert ours == renamed


@pytest.mark.parametrize("name", ["tiny_src", "tiny_src_gqa", "tiny_src_tower_tuned"])
def test_llava_folders_go_through_it_and_back(name: str, golden: Path, workshop: Workshop) -> None:
    source = golden / "llava" / name
    cs = workshop.convert(source, "cs-2.2", model="llava")
    back = workshop.convert(cs, "llava")
    assert api.verify(source, cs, hints_a=Hints(model="llava")).problems == []
    assert api.verify(cs, back, hints_b=Hints(model="llava")).problems == []
