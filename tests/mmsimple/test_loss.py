"""The loss against its formula, and what is computed for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from mmsimple.config import LossScaling
from mmsimple.freeze import freeze
from mmsimple.loss import NothingToLearn, scaled, token_losses
from mmsimple.model import Batch, MultimodalModel
from tests.mmsimple.small import FLOAT32, MULTIMODAL, apart, drawn, random, token_ids

SAMPLES, LENGTH = 3, 7
# Whole, partial and no weights; a sample of which nothing counts; a label at a position that does not.
MASK = torch.tensor([[1, 0.5, 0, 2, 0, 0.25, 0], [0] * LENGTH, [0, 0, 0, 0, 1, 1, 1]], dtype=torch.float32)
BATCH = Batch(
    text_input_ids=token_ids(SAMPLES, LENGTH),
    image_data=random(SAMPLES, 1, 3, 28, 28),
    image_data_loc=torch.tensor([[[1, 2, 3, 4]], [[LENGTH] * 4], [[0, 1, 2, 3]]]),
    labels=token_ids(SAMPLES, LENGTH, seed=1),
    loss_mask=MASK,
)
SCALINGS: list[tuple[LossScaling, float]] = [("num_tokens", 1.0), ("batch_size", 1.0), ("batch_size", 0.3)]


def model(scaling: LossScaling = "num_tokens", weight: float = 1.0) -> MultimodalModel:
    return drawn(MultimodalModel(replace(MULTIMODAL, loss_scaling=scaling, loss_weight=weight)))


def written_out(logits: Tensor, batch: Batch, scaling: LossScaling, weight: float) -> float:
    assert batch.labels is not None
    assert batch.loss_mask is not None
    total = 0.0
    for sample in range(len(logits)):
        for position in range(logits.shape[1]):
            row, label = logits[sample, position].double(), int(batch.labels[sample, position])
            entropy = float(row.exp().sum().log() - row[label])
            total += entropy * float(batch.loss_mask[sample, position])
    return total / float(batch.loss_mask.sum()) if scaling == "num_tokens" else total / len(logits) * weight


@pytest.mark.parametrize(("scaling", "weight"), SCALINGS)
@torch.inference_mode()
def test_the_models_loss_is_the_formula_of_all_its_logits(scaling: LossScaling, weight: float) -> None:
    ours = model(scaling, weight)
    assert float(ours.loss(BATCH)) == pytest.approx(written_out(ours(BATCH), BATCH, scaling, weight), rel=1e-5)


@pytest.mark.parametrize("kind", [torch.int32, torch.int64, torch.bool, torch.float32])
@torch.inference_mode()
def test_masks_may_be_of_any_element_type(kind: torch.dtype) -> None:
    ours, whole = model(), (MASK == 1).float()
    expected = written_out(ours(BATCH), BATCH._replace(loss_mask=whole), "num_tokens", 1.0)
    assert float(ours.loss(BATCH._replace(loss_mask=whole.to(kind)))) == pytest.approx(expected, rel=1e-5)


@torch.inference_mode()
def test_the_head_sees_only_tokens_that_count() -> None:
    ours, rows = model(), []
    ours.text_model.lm_head.register_forward_hook(lambda _, given, out: rows.append(tuple(out.shape)))
    ours.loss(BATCH)
    assert rows == [(int((MASK != 0).sum()), MULTIMODAL.text_model.vocab_size)]


@torch.inference_mode()
def test_labels_that_do_not_count_may_be_anything() -> None:
    ours = model()
    assert BATCH.labels is not None
    elsewhere = BATCH.labels.where(MASK != 0, -100)
    assert torch.equal(ours.loss(BATCH._replace(labels=elsewhere)), ours.loss(BATCH))


@pytest.mark.parametrize("missing", ["labels", "loss_mask"])
def test_a_loss_without_labels_or_mask_is_refused(missing: Literal["labels", "loss_mask"]) -> None:
    batch = BATCH._replace(labels=None) if missing == "labels" else BATCH._replace(loss_mask=None)
    with pytest.raises(ValueError, match="a loss needs labels and a loss_mask"):
        model().loss(batch)


def test_a_mean_over_no_tokens_is_refused() -> None:
    with pytest.raises(NothingToLearn, match="the loss mask is 0 everywhere"):
        model().loss(BATCH._replace(loss_mask=torch.zeros_like(MASK)))


def test_a_mean_over_samples_of_no_tokens_is_0_and_moves_nothing() -> None:
    ours = model("batch_size")
    loss = ours.loss(BATCH._replace(loss_mask=torch.zeros_like(MASK)))
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0
    assert not any(each.grad.any() for each in ours.parameters() if each.grad is not None)


def test_text_alone_teaches_a_projector_nothing() -> None:
    ours = model()
    freeze(ours, ["^image_model.image_model_list", "^text_model"])
    text = BATCH._replace(image_data=None, image_data_loc=None)
    assert not ours.loss(text).requires_grad
    assert ours.loss(BATCH).requires_grad


def test_gradients_are_those_of_the_formula() -> None:
    """Taking the tokens that count out before the head must leave nothing of the way back out."""
    ours, whole = model(), model()
    torch.autograd.backward(ours.loss(BATCH))
    assert BATCH.labels is not None
    losses = token_losses(whole(BATCH).flatten(0, 1), BATCH.labels.flatten()).reshape(MASK.shape)
    torch.autograd.backward((losses * MASK).sum() / MASK.sum())
    for (name, found), expected in zip(ours.named_parameters(), whole.parameters(), strict=True):
        if expected.grad is not None:
            assert found.grad is not None
            assert apart(found.grad, expected.grad) < FLOAT32, name


def test_cross_entropy_is_in_float32_also_for_bfloat16() -> None:
    logits, labels = random(5, 101).to(torch.bfloat16), token_ids(1, 5)[0]
    found = token_losses(logits, labels)
    assert found.dtype == torch.float32
    assert torch.equal(found, token_losses(logits.float(), labels))


def test_scalings_are_their_formulas() -> None:
    losses, weights = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.5, 2.0])
    assert float(scaled(losses, weights, 3.5, "num_tokens", 1.0)) == pytest.approx(10 / 3.5)
    assert float(scaled(losses, weights, 5, "batch_size", 0.25)) == pytest.approx(10 / 5 * 0.25)
