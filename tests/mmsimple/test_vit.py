"""The image encoder: which layers run, where the class token stands, and what options do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mmsimple.attention import Attention
from mmsimple.config import ClassifierConfig, ViTConfig
from mmsimple.vit import POST_EMBED_EPSILON, EncoderLayer, TransformerEncoder, ViTClassifier, ViTModel
from tests.mmsimple.reference import encoder as written_out
from tests.mmsimple.small import FLOAT32, VIT, apart, drawn, random

IMAGES = random(2, 3, 28, 28)


def stack(model: ViTModel) -> TransformerEncoder:
    found = model.encoder["transformer_encoder"]
    assert isinstance(found, TransformerEncoder)
    return found


def calls_of(modules: nn.ModuleList | list[nn.Module]) -> list[int]:
    """The numbers of the modules that were called since, in order."""
    calls: list[int] = []
    for number, module in enumerate(modules):
        module.register_forward_hook(lambda *_, number=number: calls.append(number))
    return calls


@pytest.mark.parametrize(
    ("index", "layers"),
    [(None, [0, 1, 2]), (-1, [0, 1, 2]), (-2, [0, 1]), (-3, [0]), (0, [0]), (1, [0, 1]), (2, [0, 1, 2])],
)
@torch.inference_mode()
def test_only_layers_that_are_needed_run(index: int | None, layers: list[int]) -> None:
    model = drawn(ViTModel(replace(VIT, image_layer_idx=index)))
    ran, normed = calls_of(stack(model).layers), calls_of([stack(model).norm])
    model(IMAGES)
    assert ran == layers
    assert normed == ([0] if index is None else [])


@torch.inference_mode()
def test_the_class_token_is_first_and_its_position_last() -> None:
    model = drawn(ViTModel(VIT)).embedding_layer
    model.post_embed_ln = nn.Identity()
    plain = model(IMAGES)
    assert plain.shape == (2, 5, 32)
    torch.testing.assert_close(plain[:, 0], (model.cls_embedding + model.position_embeddings.weight[4]).expand(2, 32))
    for row in range(5):
        moved = model.position_embeddings.weight.clone()
        model.position_embeddings.weight[row] += 1
        changed = (model(IMAGES) - plain).abs().sum((0, 2)) > 1
        assert changed.nonzero().flatten().tolist() == [(row + 1) % 5]
        model.position_embeddings.weight.copy_(moved)


OPTIONS: dict[str, ViTConfig] = {
    "none": VIT,
    "all-layers-and-norm": replace(VIT, image_layer_idx=None),
    "no-first-norm": replace(VIT, use_post_embed_layer_norm=False),
    "no-biases": replace(
        VIT,
        use_embed_proj_bias=False,
        use_projection_bias_in_attention=False,
        use_ffn_bias_in_attention=False,
        use_ffn_bias=False,
    ),
    "oblong-patches": replace(VIT, image_size=(28, 42), patch_size=(7, 14)),
    "quick_gelu": replace(VIT, nonlinearity="quick_gelu"),
    "epsilon": replace(VIT, layer_norm_epsilon=0.1, image_layer_idx=None),
    "one-channel": replace(VIT, num_channels=1),
}


@pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS.keys())
@torch.inference_mode()
def test_every_option_is_what_a_loop_makes_of_it(config: ViTConfig) -> None:
    model = drawn(ViTModel(config))
    images = random(2, config.num_channels, *config.image_size)
    expected = torch.stack([written_out(model.state_dict(), config, image) for image in images])
    assert apart(model(images), expected) < FLOAT32


def test_the_first_norms_epsilon_is_not_that_of_the_others() -> None:
    model = ViTModel(replace(VIT, layer_norm_epsilon=0.1))
    norms = {name: module.eps for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    assert norms.pop("embedding_layer.post_embed_ln") == POST_EMBED_EPSILON == 1e-5
    assert set(norms.values()) == {0.1}


@torch.inference_mode()
def test_images_are_taken_into_the_weights_own_type() -> None:
    model = drawn(ViTModel(VIT)).to(torch.bfloat16)
    assert model(IMAGES).dtype == torch.bfloat16


@torch.inference_mode()
def test_a_classifier_is_a_linear_layer_on_the_normed_class_token() -> None:
    config = ClassifierConfig(replace(VIT, image_layer_idx=None), num_classes=7)
    model = drawn(ViTClassifier(config))
    w = model.state_dict()
    head = "classifier.classifier.ffn.0.linear_layer."
    expected: Tensor = model.vit_model(IMAGES)[:, 0] @ w[f"{head}weight"].T + w[f"{head}bias"]
    assert apart(model(IMAGES), expected) < 1e-6


def test_dropout_rates_are_where_the_config_puts_them() -> None:
    config = replace(VIT, embedding_dropout_rate=0.1, dropout_rate=0.2, attention_dropout_rate=0.3)
    model = ViTModel(config)
    rates = {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    assert rates.pop("embedding_layer.dropout") == 0.1
    assert set(rates.values()) == {0.2}
    assert {module.dropout for module in model.modules() if isinstance(module, Attention)} == {0.3}


@torch.no_grad()
def test_patches_are_dropped_after_their_positions_and_before_the_first_norm() -> None:
    model = drawn(ViTModel(VIT)).embedding_layer.train()
    model.dropout.p = 1.0
    assert isinstance(model.post_embed_ln, nn.LayerNorm)
    # Of nothing the norm gives its bias.
    torch.testing.assert_close(model(IMAGES), model.post_embed_ln.bias.expand(2, 5, 32))


@torch.no_grad()
@pytest.mark.parametrize("place", ["attention", "inner", "outer"])
def test_dropout_in_a_layer_takes_away_what_is_before_it(place: str) -> None:
    layer = stack(drawn(ViTModel(VIT))).layers[0]
    assert isinstance(layer, EncoderLayer)
    x = random(2, 5, 32)
    attended = x + layer.self_attn(layer.norm1(x))
    expected = {
        "attention": x + layer.ffn(layer.norm2(x)),
        "inner": attended + layer.get_parameter("ffn.ffn.1.linear_layer.bias"),
        "outer": attended,
    }
    assert apart(layer(x), attended + layer.ffn(layer.norm2(attended))) == 0
    layer.train()
    for name, path in {"attention": "dropout", "inner": "ffn.ffn.0.dropout", "outer": "ffn.ffn.1.dropout"}.items():
        dropout = layer.get_submodule(path)
        assert isinstance(dropout, nn.Dropout)
        dropout.p = float(name == place)
    assert apart(layer(x), expected[place]) < 1e-6


def test_fresh_weights_are_normal_and_cut_off_at_two_deviations() -> None:
    torch.manual_seed(0)
    model = ViTModel(replace(VIT, hidden_size=64, filter_size=256, initializer_range=0.05))
    matrices = torch.cat([each.flatten() for each in model.parameters() if each.dim() > 1])
    assert 0.09 < float(matrices.detach().abs().max()) <= 0.1
    # A normal distribution that is cut off at two deviations has 0.88 of the deviation.
    assert float(matrices.detach().std()) == pytest.approx(0.05 * 0.88, rel=0.02)
    assert model.embedding_layer.cls_embedding.any()
    assert not any(each.any() for name, each in model.named_parameters() if name.endswith("bias"))
