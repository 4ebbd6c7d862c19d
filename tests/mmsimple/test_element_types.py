"""Parts of a model in element types of their own: each computes in its own, and what is mixed within one is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mmconvert import api
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused
from mmsimple import MultimodalModel, build, checkpoint, load_model
from mmsimple.checkpoint import save
from mmsimple.config import AveragePoolingConfig, ClassifierConfig, FeedForwardConfig, ImageModelConfig
from mmsimple.element_types import computed_in
from mmsimple.model import Batch
from mmsimple.norm import LayerNorm, RMSNorm
from mmsimple.vit import ViTClassifier
from tests.mmsimple.small import BFLOAT16, DECODER, MULTIMODAL, VIT, apart, drawn, random, token_ids

HF = Path(__file__).parents[1] / "golden" / "inputs" / "mmsimple"
# Each projection of another kind, with tokens of both.
CONFIG = replace(
    MULTIMODAL,
    image_models=(
        ImageModelConfig(VIT, FeedForwardConfig(32, (40,), ("gelu",), (0.0,), use_bias=True)),
        ImageModelConfig(replace(VIT, image_layer_idx=None), AveragePoolingConfig(32, 40, (1, 2))),
    ),
    projection=FeedForwardConfig(40, (48, 48), ("gelu", None), (0.0, 0.0), use_bias=True),
    text_model=replace(DECODER, use_bias_in_output=True),
)
BATCH = Batch(
    token_ids(2, 12),
    random(2, 1, 3, 28, 28),
    torch.arange(6).expand(2, 1, 6),
    labels=token_ids(2, 12, seed=1),
    loss_mask=torch.ones(2, 12),
)
ENCODER, TEXT = "image_model.image_model_list.0", "text_model"
LAYERS = f"{TEXT}.transformer_decoder.layers"
PARTS = {
    "an encoder": (f"{ENCODER}.0.",),
    "its projection": (f"{ENCODER}.1.",),
    "a pooling": ("image_model.image_model_list.1.1.",),
    "the projector": ("image_model.projection.",),
    "the decoder": ("text_model.",),
    "the head": ("text_model.lm_head.",),
    "the words": ("text_model.embedding_layer.",),
    "norms of an encoder": (f"{ENCODER}.0.embedding_layer.post_embed_ln.", ".norm1.", ".norm2."),
    "norms of the decoder": ("text_model.transformer_decoder.norm.", ".norm1.", ".norm3."),
    "embeddings of an encoder": (".cls_embedding", ".position_embeddings."),
    "all but norms": ("linear", "dense_layer", "embedding", "lm_head"),
}


def in_types(model: nn.Module, names: tuple[str, ...], dtype: torch.dtype, others: torch.dtype) -> None:
    """Parameters whose names hold one of these in one type, the others in another."""
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(dtype if any(each in name for each in names) else others)


@pytest.mark.parametrize("names", PARTS.values(), ids=PARTS.keys())
@pytest.mark.parametrize("is_narrow", [True, False])
def test_each_part_computes_in_its_own_type(names: tuple[str, ...], is_narrow: bool) -> None:
    model = drawn(MultimodalModel(CONFIG))
    with torch.inference_mode():
        expected = model(BATCH)
    in_types(model, names, *((torch.bfloat16, torch.float32) if is_narrow else (torch.float32, torch.bfloat16)))
    loss = model.loss(BATCH)
    torch.autograd.backward(loss)
    with torch.inference_mode():
        found = model(BATCH)
    assert found.dtype == model.text_model.lm_head.weight.dtype
    assert apart(found, expected) < BFLOAT16


@torch.inference_mode()
@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_a_classifier_computes_in_its_own_type(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    model = drawn(ViTClassifier(ClassifierConfig(VIT, 7)))
    images = random(2, 3, 28, 28)
    expected = model(images)
    in_types(model, ("classifier.",), *dtypes)
    assert apart(model(images), expected) < BFLOAT16


@torch.inference_mode()
@pytest.mark.parametrize("norm", [LayerNorm(1000), RMSNorm(1000, 1e-5)], ids=["layer norm", "rms norm"])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_norms_give_the_type_that_they_get(norm: LayerNorm | RMSNorm, weights: torch.dtype, given: torch.dtype) -> None:
    norm = drawn(norm).to(weights)
    x = random(3, 1000).to(given)
    found = norm(x)
    assert found.dtype == given
    assert apart(found, norm.float()(x.float())) < BFLOAT16


@torch.inference_mode()
def test_a_layer_norm_of_one_type_is_torchs() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        ours = drawn(LayerNorm(64, eps=0.1)).to(dtype)
        theirs = nn.LayerNorm(64, eps=0.1).to(dtype)
        theirs.load_state_dict(ours.state_dict())
        x = random(3, 64).to(dtype)
        assert torch.equal(ours(x), theirs(x))


def test_what_has_no_linear_layer_has_no_type() -> None:
    assert computed_in(nn.Identity()) is computed_in(nn.LayerNorm(4)) is None
    assert computed_in(nn.ModuleList([nn.LayerNorm(4), nn.Linear(4, 4).half()])) == torch.float16


def test_a_conversion_to_several_types_answers(tmp_path: Path) -> None:
    options = api.Options(container="safetensors", dtype={"text": BY_NAME["float32"], "vision": BY_NAME["bfloat16"]})
    api.convert(HF, tmp_path / "cs", "cs", options=options, fsync=False)
    model = MultimodalModel.from_checkpoint(tmp_path / "cs")
    assert {each.dtype for each in model.text_model.parameters()} == {torch.float32}
    assert {each.dtype for each in model.image_model.image_model_list.parameters()} == {torch.bfloat16}
    ids = token_ids(1, 9)
    batch = Batch(ids, random(1, 1, 3, 28, 28), torch.arange(4).expand(1, 1, 4))
    with torch.inference_mode():
        assert apart(model(batch), MultimodalModel.from_checkpoint(HF, dtype=torch.float32)(batch)) < BFLOAT16


FIRST, LAST = f"{LAYERS}.0.self_attn.proj_q_dense_layer.weight", f"{LAYERS}.1.ffn.ffn.1.linear_layer.bias"
CONV = f"{ENCODER}.0.embedding_layer.linear_proj.weight"


@pytest.mark.parametrize(
    ("odd", "other"),
    [
        (LAST, FIRST),
        (f"{ENCODER}.0.encoder.transformer_encoder.layers.1.ffn.ffn.0.linear_layer.weight", CONV),
        (f"{ENCODER}.1.ffn.0.linear_layer.bias", f"{ENCODER}.1.ffn.0.linear_layer.weight"),
        ("image_model.image_model_list.1.1.linear_layer.bias", "image_model.image_model_list.1.1.linear_layer.weight"),
        ("image_model.projection.ffn.1.linear_layer.weight", "image_model.projection.ffn.0.linear_layer.weight"),
        ("text_model.lm_head.bias", "text_model.lm_head.weight"),
    ],
)
def test_a_mixture_within_a_part_is_refused_with_two_keys(
    odd: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(CONFIG)
    in_types(model, (odd,), torch.bfloat16, torch.float32)
    save(model, CONFIG, tmp_path / "cs", container="safetensors")
    with monkeypatch.context() as patched, pytest.raises(InputRefused) as refused:
        # Nothing is read before.
        patched.setattr(checkpoint, "read_tensor", None)
        load_model(tmp_path / "cs")
    said = f"{odd} is bfloat16 and {other} float32, but one part computes in one type; dtype= makes them one"
    assert str(refused.value) == f"{tmp_path / 'cs' / 'model.safetensors'}: {said}"
    assert {each.dtype for each in load_model(tmp_path / "cs", dtype=torch.float32).parameters()} == {torch.float32}


@pytest.mark.parametrize("names", PARTS.values(), ids=PARTS.keys())
def test_parts_of_several_types_are_loaded_as_they_are(names: tuple[str, ...], tmp_path: Path) -> None:
    model = build(CONFIG)
    in_types(model, names, torch.bfloat16, torch.float32)
    save(model, CONFIG, tmp_path / "cs", container="safetensors")
    found = {name: each.dtype for name, each in load_model(tmp_path / "cs").named_parameters()}
    assert found == {name: each.dtype for name, each in model.named_parameters()}
