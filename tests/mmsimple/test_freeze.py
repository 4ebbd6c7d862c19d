"""Freezing: which parameters train, which modules rest, what autograd records, and patterns that are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from mmconvert.errors import InputRefused, UsageError
from mmsimple.config import FeedForwardConfig, ImageModelConfig
from mmsimple.freeze import freeze, shortened, summarised
from mmsimple.model import Batch, MultimodalModel
from tests.mmsimple.small import DECODER, MULTIMODAL, VIT, random, token_ids

PHASE_1 = ("^image_model.image_model_list", "^text_model")
PHASE_2 = ("^image_model.image_model_list",)
# Two projections: one of the encoder's own, and the global one.
TWICE = replace(
    MULTIMODAL,
    image_models=(ImageModelConfig(VIT, FeedForwardConfig(32, (40,), (None,), (0.0,), use_bias=True)),),
    projection=FeedForwardConfig(40, (48, 48), ("gelu", None), (0.5, 0.0), use_bias=True),
)


def small() -> MultimodalModel:
    return MultimodalModel(MULTIMODAL)


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def batch(model: MultimodalModel) -> Batch:
    ids, tokens = token_ids(1, 8), model.tokens_per_image
    return Batch(
        ids,
        random(1, 1, 3, 28, 28),
        torch.arange(tokens)[None, None],
        labels=ids,
        loss_mask=torch.ones(1, 8),
    )


def test_phase_1_trains_the_projector_alone() -> None:
    model = small()
    freeze(model, PHASE_1)
    assert trained(model) == {
        f"image_model.projection.{name}" for name, _ in model.image_model.projection.named_parameters()
    }


def test_what_no_pattern_matches_trains_even_if_it_was_frozen_before() -> None:
    model = small()
    freeze(model, PHASE_1)
    freeze(model, PHASE_2)
    assert all(parameter.requires_grad for parameter in model.text_model.parameters())
    freeze(model, ())
    assert trained(model) == {name for name, _ in model.named_parameters()}


def test_any_name_of_a_parameter_counts() -> None:
    model = small()
    freeze(model, ["ln_f"])
    assert not model.text_model.transformer_decoder.norm.weight.requires_grad
    tied = MultimodalModel(replace(MULTIMODAL, text_model=replace(DECODER, share_embedding_weights=True)))
    freeze(tied, ["lm_head"])
    assert not tied.text_model.embedding_layer["word_embeddings"].weight.requires_grad


def test_frozen_parts_stay_in_eval_mode() -> None:
    model = small()
    freeze(model, PHASE_2)
    model.eval()
    model.train()
    assert not any(module.training for module in model.image_model.image_model_list.modules())
    assert all(module.training for module in model.text_model.modules())
    assert all(module.training for module in model.image_model.projection.modules())
    assert model.training


def test_freezing_takes_effect_without_another_call_of_train() -> None:
    model = small()
    freeze(model, PHASE_2)
    assert not model.image_model.image_model_list.training
    assert model.image_model.projection.training


def test_a_model_in_eval_mode_stays_there() -> None:
    model = small().eval()
    freeze(model, PHASE_2)
    assert not any(module.training for module in model.modules())


def test_a_frozen_embedding_leaves_the_decoders_dropout_on() -> None:
    model = small()
    freeze(model, ["word_embeddings"])
    assert not model.text_model.embedding_layer.training
    assert model.text_model.dropout.training
    assert all(module.training for module in model.text_model.transformer_decoder.modules())


def test_what_is_thawed_trains_again() -> None:
    model = small()
    freeze(model, PHASE_1)
    freeze(model, PHASE_2)
    assert all(module.training for module in model.text_model.modules())


def test_a_frozen_encoder_is_not_recorded() -> None:
    model = MultimodalModel(TWICE)
    freeze(model, [*PHASE_1, "^image_model.projection.ffn.0"])
    assert model.image_model.encode(random(1, 3, 28, 28))[0].grad_fn is None
    assert model.image_model(random(1, 3, 28, 28)).grad_fn is not None


def test_a_frozen_projector_behind_a_frozen_encoder_is_not_recorded() -> None:
    model = MultimodalModel(TWICE)
    freeze(model, ["^image_model"])
    assert model.image_model(random(1, 3, 28, 28)).grad_fn is None


def test_a_projection_that_trains_is_recorded_and_not_the_encoder_before_it() -> None:
    model = MultimodalModel(TWICE)
    freeze(model, ["^image_model.image_model_list.0.0", "^image_model.projection", "^text_model"])
    encoded = model.image_model.encode(random(1, 3, 28, 28))
    assert encoded[0].grad_fn is None
    assert model.image_model.project(encoded).grad_fn is not None


def test_gradients_pass_a_frozen_decoder_and_it_gets_none() -> None:
    model = small()
    freeze(model, PHASE_1)
    model.loss(batch(model)).backward()  # type: ignore[no-untyped-call]
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == trained(model)


def test_a_pattern_that_matches_nothing_is_named_with_what_there_is() -> None:
    model = small()
    with pytest.raises(UsageError) as refused:
        freeze(model, ["^text_model", "^model.image_model"], "x.yaml: freeze")
    assert str(refused.value) == (
        "x.yaml: freeze: '^model.image_model' matches no parameter; "
        "parameters begin with image_model.image_model_list, image_model.projection, text_model"
    )
    assert trained(model) == {name for name, _ in model.named_parameters()}


def test_a_refused_set_of_patterns_freezes_nothing() -> None:
    model = small()
    with pytest.raises(UsageError, match=r"leave nothing to train; .image_model matches the projector"):
        freeze(model, ["^image_model", "^text_model"])
    assert trained(model) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("patterns", [["(?:.|\n)*"], ["[^\n]{999999999999}"], ["x\n" * 50], ["(?:\n|.)"] * 50])
def test_long_patterns_of_several_lines_are_told_in_a_short_one(patterns: list[str]) -> None:
    with pytest.raises((InputRefused, UsageError)) as refused:
        freeze(small(), patterns)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250


def test_a_pattern_that_may_run_away_is_refused() -> None:
    with pytest.raises(InputRefused, match=r"^x: freeze: '\(a\*\)\*' may search for ever"):
        freeze(small(), ["^text_model", "(a*)*"], "x: freeze")


def test_groups_that_are_not_repeated_are_fine() -> None:
    model = small()
    freeze(model, [r"layers\.\d+\.(?:norm1|norm3)\."])
    assert {name.split(".")[-2] for name, each in model.named_parameters() if not each.requires_grad} == {
        "norm1",
        "norm3",
    }


def test_the_summary_counts_each_part_and_each_shared_parameter_once() -> None:
    model = MultimodalModel(replace(TWICE, text_model=replace(DECODER, share_embedding_weights=True)))
    found = freeze(model, ["^image_model.image_model_list.0.0", "word_embeddings"])
    assert [part.name for part in found.parts] == [
        "image_model.image_model_list.0.0",
        "image_model.image_model_list.0.1",
        "image_model.projection",
        "text_model",
    ]
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.trained == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert found.parts[0].trained == 0
    assert found.parts[1].trained == found.parts[1].parameters == 32 * 40 + 40
    assert found.parts[3].parameters - found.parts[3].trained == 101 * 48


def test_the_summary_in_words_joins_encoders_of_one_kind() -> None:
    model = MultimodalModel(TWICE)
    told = str(freeze(model, PHASE_1))
    assert told.endswith("parameters: image_model.projection; frozen: image_model.image_model_list, text_model"), told
    told = str(freeze(model, ["^image_model.image_model_list.0.0", "word_embeddings"]))
    assert ": image_model.image_model_list.0.1, image_model.projection, text_model (" in told
    assert told.endswith("; frozen: image_model.image_model_list.0.0")


def test_a_model_that_trains_as_a_whole_names_nothing_frozen() -> None:
    assert str(summarised(nn.Linear(10, 10))) == "training 110 of 110 parameters: model"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (9_994_999, "9.99 M"),
        (9_995_000, "10.0 M"),
        (20_979_712, "21.0 M"),
        (303_507_456, "304 M"),
        (7_062_902_784, "7.06 B"),
    ],
)
def test_numbers_of_parameters_have_three_digits(count: int, text: str) -> None:
    assert shortened(count) == text
