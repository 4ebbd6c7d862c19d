"""The multimodal model against recordings of the reference, and what it makes of a batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmsimple.model import Batch, MultimodalModel
from mmsimple.vit import ViTModel

GOLDEN = Path(__file__).parents[1] / "golden"
FORWARD = GOLDEN / "forward_mmsimple"
LOGITS = 2e-5
FEATURES = 1e-5

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def model() -> MultimodalModel:
    return MultimodalModel.from_checkpoint(GOLDEN / "inputs" / "mmsimple")


@pytest.fixture(scope="module")
def inputs() -> Tensors:
    return load_file(FORWARD / "inputs.safetensors")


@pytest.fixture(scope="module")
def recorded() -> Tensors:
    return load_file(FORWARD / "outputs.safetensors")


@pytest.fixture(scope="module")
def batch(inputs: Tensors) -> Batch:
    return Batch(**{name: inputs[name] for name in Batch._fields if name in inputs})


@pytest.fixture
def encoder(model: MultimodalModel, monkeypatch: pytest.MonkeyPatch) -> ViTModel:
    """The model's encoder, but with all of its layers and the final norm."""
    encoder = model.image_model.get_submodule("image_model_list.0.0")
    assert isinstance(encoder, ViTModel)
    monkeypatch.setattr(encoder.encoder["transformer_encoder"], "last_layer", None)
    return encoder


def logits(model: MultimodalModel, batch: Batch) -> Tensor:
    with torch.inference_mode():
        out: Tensor = model(batch)
    return out


def furthest(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


def test_logits_of_real_tokens_are_those_recorded(
    model: MultimodalModel, batch: Batch, inputs: Tensors, recorded: Tensors
) -> None:
    """The reference hides padded keys from padded queries too, so that only these differ."""
    real = inputs["key_padding_mask"] == 0
    found = logits(model, batch)
    assert furthest(found[real], recorded["logits"][real]) < LOGITS
    assert furthest(found, recorded["logits_without_key_padding_mask"]) < LOGITS
    assert furthest(found[~real], recorded["logits"][~real]) > 0.1


def test_logits_are_those_of_the_model_that_was_converted(
    model: MultimodalModel, batch: Batch, inputs: Tensors
) -> None:
    real = inputs["key_padding_mask"] == 0
    expected = load_file(FORWARD / "hf_logits.safetensors")["hf_logits"]
    assert furthest(logits(model, batch)[real], expected[real]) < LOGITS


def test_features_are_those_recorded(model: MultimodalModel, inputs: Tensors, recorded: Tensors) -> None:
    images = inputs["image_data"][:, 0]
    encoder = model.image_model.get_submodule("image_model_list.0.0")
    assert isinstance(encoder, ViTModel)
    with torch.inference_mode():
        assert furthest(encoder.embedding_layer(images), recorded["vit_embedding_output"]) < FEATURES
        assert furthest(encoder(images), recorded["vit_features"]) < FEATURES
        assert furthest(model.image_model(images), recorded["projected_image_features"][:, 0]) < FEATURES


def test_all_layers_and_the_norm_are_those_recorded(encoder: ViTModel, inputs: Tensors, recorded: Tensors) -> None:
    with torch.inference_mode():
        found = encoder(inputs["image_data"][:, 0])
    assert furthest(found, recorded["vit_full_output"]) < FEATURES
    assert furthest(found[:, 0], recorded["vit_pooled"]) < FEATURES


def test_text_with_image_features_in_it_is_what_the_decoder_reads(
    model: MultimodalModel, batch: Batch, recorded: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.text_model, "decode", lambda embeddings, modality, cache: embeddings)
    with torch.inference_mode():
        assert furthest(model.hidden_states(batch), recorded["embeddings"]) < FEATURES


def test_text_alone_gives_what_is_recorded_for_it(
    model: MultimodalModel, batch: Batch, inputs: Tensors, recorded: Tensors
) -> None:
    real = inputs["key_padding_mask"] == 0
    found = logits(model, batch._replace(image_data=None, image_data_loc=None))
    assert furthest(found[real], recorded["text_only_logits"][real]) < LOGITS


def test_a_slot_without_image_gives_what_is_recorded_for_it(
    model: MultimodalModel, batch: Batch, inputs: Tensors, recorded: Tensors
) -> None:
    real = inputs["key_padding_mask"] == 0
    positions = inputs["image_data_loc"].clone()
    positions[0] = batch.text_input_ids.shape[1]
    found = logits(model, batch._replace(image_data_loc=positions))
    assert furthest(found[real], recorded["logits_row0_image_dummied"][real]) < LOGITS


def test_the_loss_is_the_one_recorded(model: MultimodalModel, batch: Batch, recorded: Tensors) -> None:
    with torch.inference_mode():
        assert abs(float(model.loss(batch)) - float(recorded["loss"])) < 1e-6 * float(recorded["loss"])
