"""The decoder: shared weights, what its tokens see, and the options that no Hugging Face LLaMA has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmsimple.attention import Attention, Visibility
from mmsimple.config import LlamaConfig
from mmsimple.llama import DecoderLayer, LlamaModel
from mmsimple.norm import RMSNorm
from mmsimple.rotary import rotation
from tests.mmsimple.reference import decoder as written_out
from tests.mmsimple.small import DECODER, FLOAT32, apart, drawn, random, token_ids

NO_DROPOUT = replace(DECODER, embedding_dropout_rate=0.0, dropout_rate=0.0, attention_dropout_rate=0.0)
LENGTH = 14
IDS = token_ids(2, LENGTH)


def from_loops(model: LlamaModel, modality: Tensor | None = None) -> Tensor:
    weights, table = model.state_dict(), model.state_dict()["embedding_layer.word_embeddings.weight"]
    kinds = [None] * len(IDS) if modality is None else list(modality)
    rows = [written_out(weights, model.config, table[ids], kind) for ids, kind in zip(IDS, kinds, strict=True)]
    return torch.stack(rows)


def test_a_tied_head_is_the_embedding_itself() -> None:
    model = LlamaModel(replace(DECODER, share_embedding_weights=True))
    assert model.lm_head.weight is model.get_parameter("embedding_layer.word_embeddings.weight")
    untied = LlamaModel(DECODER)
    assert len(list(untied.parameters())) == len(list(model.parameters())) + 1
    assert model.state_dict().keys() == untied.state_dict().keys()


def test_the_final_norm_has_two_names_and_is_one() -> None:
    model = LlamaModel(DECODER)
    assert model.ln_f is model.transformer_decoder.norm
    assert {"ln_f.weight", "transformer_decoder.norm.weight"} <= model.state_dict().keys()


OPTIONS: dict[str, LlamaConfig] = {
    "none": DECODER,
    "tied": replace(DECODER, share_embedding_weights=True),
    "few-entries-rotated": replace(DECODER, rotary_dim=4),
    "no-biases": replace(
        DECODER, use_projection_bias_in_attention=False, use_ffn_bias_in_attention=False, use_ffn_bias=False
    ),
    "bias-in-the-head": replace(DECODER, use_bias_in_output=True),
    "geglu": replace(DECODER, nonlinearity="geglu"),
    "reglu": replace(DECODER, nonlinearity="reglu"),
    "window": replace(DECODER, attention_sliding_window_length=5),
    "epsilon": replace(DECODER, layer_norm_epsilon=0.1),
}


@pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS.keys())
@torch.inference_mode()
def test_every_option_is_what_a_loop_makes_of_it(config: LlamaConfig) -> None:
    model = drawn(LlamaModel(config))
    assert apart(model(IDS), from_loops(model)) < FLOAT32


@torch.inference_mode()
def test_dual_experts_are_what_a_loop_makes_of_them() -> None:
    model = drawn(LlamaModel(replace(DECODER, static_dual_expert=True)))
    modality = (token_ids(2, LENGTH, seed=3) % 2).to(torch.int64)
    assert apart(model(IDS, modality), from_loops(model, modality)) < FLOAT32
    with pytest.raises(ValueError, match="token_modality_idx is missing"):
        model(IDS)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What attention was asked for, each time."""
    calls: list[dict[str, Any]] = []
    compute = F.scaled_dot_product_attention

    def record(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> Tensor:
        calls.append(arguments)
        return compute(q, k, v, **arguments)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    return calls


@pytest.mark.parametrize("window", [None, LENGTH, LENGTH + 1])
@torch.inference_mode()
def test_no_mask_is_made_up_to_the_window(window: int | None, asked: list[dict[str, Any]]) -> None:
    drawn(LlamaModel(replace(DECODER, attention_sliding_window_length=window)))(IDS)
    assert [(each["is_causal"], each["attn_mask"]) for each in asked] == [(True, None)] * 2


@torch.inference_mode()
def test_past_the_window_a_token_sees_itself_and_those_just_before(asked: list[dict[str, Any]]) -> None:
    drawn(LlamaModel(replace(DECODER, attention_sliding_window_length=LENGTH - 1)))(IDS)
    (mask, again), causal = [each["attn_mask"] for each in asked], {each["is_causal"] for each in asked}
    assert causal == {False}
    assert torch.equal(mask, again)
    assert [row.nonzero().flatten().tolist() for row in mask] == [
        [key for key in range(LENGTH) if query - (LENGTH - 1) < key <= query] for query in range(LENGTH)
    ]


@torch.inference_mode()
def test_what_comes_later_changes_nothing() -> None:
    model = drawn(LlamaModel(DECODER))
    later = torch.cat((IDS[:, :9], token_ids(2, 5, seed=7)), dim=1)
    found, expected = model(later), model(IDS)
    assert apart(found[:, :9], expected[:, :9]) < FLOAT32
    assert apart(found[:, 9:], expected[:, 9:]) > 0.1


def test_rms_norm_reckons_in_float32_and_scales_in_the_models_own_type() -> None:
    norm = drawn(RMSNorm(1000, 1e-5)).to(torch.bfloat16)
    x = (300 * random(2, 1000)).to(torch.bfloat16)
    wide = x.float()
    normed = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    found = norm(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, normed.to(torch.bfloat16) * norm.weight)


def test_dropout_rates_are_where_the_config_puts_them() -> None:
    config = replace(DECODER, embedding_dropout_rate=0.1, dropout_rate=0.2, attention_dropout_rate=0.3)
    model = LlamaModel(config)
    rates = {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    assert rates.pop("dropout") == 0.1
    # Nothing is dropped between the two layers of a feed-forward network.
    inner = {name for name, rate in rates.items() if rate == 0}
    assert inner == {f"transformer_decoder.layers.{number}.ffn.ffn.0.dropout" for number in range(2)}
    assert {rate for name, rate in rates.items() if name not in inner} == {0.2}
    assert {module.dropout for module in model.modules() if isinstance(module, Attention)} == {0.3}


@torch.no_grad()
def test_embeddings_are_dropped_before_the_first_layer() -> None:
    model = drawn(LlamaModel(NO_DROPOUT))
    embeddings = model.embed(IDS)
    nothing = model.decode(torch.zeros_like(embeddings))
    model.train()
    assert torch.equal(model.decode(embeddings), model.eval().decode(embeddings))
    model.train().dropout.p = 1.0
    assert torch.equal(model.decode(embeddings), nothing)


@torch.no_grad()
@pytest.mark.parametrize("place", ["attention", "outer"])
def test_dropout_in_a_layer_takes_away_what_is_before_it(place: str) -> None:
    layer = drawn(LlamaModel(NO_DROPOUT)).transformer_decoder.layers[0]
    assert isinstance(layer, DecoderLayer)
    x, turns = random(2, LENGTH, 48), rotation(DECODER, torch.arange(LENGTH), torch.float32)

    def run(x: Tensor) -> Tensor:
        out: Tensor = layer(x, Visibility(is_causal=True), turns, None, None)
        return out

    attended = x + layer.self_attn(layer.norm1(x), Visibility(is_causal=True), turns)
    expected = {"attention": x + layer.ffn(layer.norm3(x)), "outer": attended}
    assert apart(run(x), attended + layer.ffn(layer.norm3(attended))) == 0
    dropout = layer.train().get_submodule({"attention": "dropout", "outer": "ffn.ffn.1.dropout"}[place])
    assert isinstance(dropout, nn.Dropout)
    dropout.p = 1.0
    assert apart(run(x), expected[place]) < 1e-6


def test_fresh_weights_are_normal_and_cut_off_at_two_deviations() -> None:
    torch.manual_seed(0)
    model = LlamaModel(replace(DECODER, initializer_range=0.05))
    matrices = torch.cat([each.detach().flatten() for each in model.parameters() if each.dim() > 1])
    assert 0.09 < float(matrices.abs().max()) <= 0.1
    assert float(matrices.std()) == pytest.approx(0.05 * 0.88, rel=0.02)
    assert not any(each.any() for name, each in model.named_parameters() if name.endswith("bias"))
