"""The gradients of an update: the same however its samples are split."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mmsimple.config import LossScaling
from mmsimple.freeze import freeze
from mmsimple.loss import NothingToLearn
from mmsimple.model import Batch, MultimodalModel
from mmsimple.train.update import accumulate, learned_tokens, parts, tokens
from tests.mmsimple.small import FLOAT32, MULTIMODAL, apart, drawn
from tests.mmsimple.train.batches import batch_of, joined
from tests.mmsimple.train.updates import PROJECTOR

CPU = torch.device("cpu")


def model_of(scaling: LossScaling = "num_tokens") -> MultimodalModel:
    return drawn(MultimodalModel(replace(MULTIMODAL, loss_scaling=scaling, loss_weight=0.5)))


def gradients(
    model: MultimodalModel, batches: list[Batch], size: int | None = None, half: torch.dtype | None = None
) -> tuple[float, dict[str, Tensor]]:
    loss = accumulate(model, batches, torch.autograd.backward, micro_batch_size=size, device=CPU, half=half)
    return loss, {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("scaling", ["num_tokens", "batch_size"])
@pytest.mark.parametrize("size", [None, 1, 3])
def test_eight_samples_are_four_batches_of_two(scaling: LossScaling, size: int | None) -> None:
    batches = [batch_of(2, seed=seed) for seed in range(4)]
    assert len({learned_tokens([batch]) for batch in batches}) > 1, "batches that weigh the same would prove nothing"
    together, expected = gradients(model_of(scaling), [joined(batches)])
    apart_, found = gradients(model_of(scaling), batches, size)
    assert apart_ == pytest.approx(together, rel=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert apart(found[name], gradient) < FLOAT32, name


def test_the_loss_is_the_models_own_for_one_batch() -> None:
    batch, model = batch_of(3), model_of()
    loss, found = gradients(model, [batch])
    other = model_of()
    torch.autograd.backward(other.loss(batch))
    assert loss == other.loss(batch).item()
    for name, parameter in other.named_parameters():
        assert parameter.grad is None or torch.equal(found[name], parameter.grad), name


def test_a_batch_without_tokens_to_learn_weighs_nothing() -> None:
    batch = batch_of(2)
    assert batch.loss_mask is not None
    empty = batch_of(2, seed=1)._replace(loss_mask=torch.zeros_like(batch.loss_mask))
    alone, expected = gradients(model_of(), [batch])
    beside, found = gradients(model_of(), [empty, batch])
    assert beside == pytest.approx(alone)
    assert all(apart(found[name], gradient) < FLOAT32 for name, gradient in expected.items())
    with pytest.raises(NothingToLearn):
        gradients(model_of(), [empty, empty])


def test_texts_alone_are_passed_over_where_only_the_projector_trains() -> None:
    def projector_alone() -> MultimodalModel:
        model = model_of()
        freeze(model, PROJECTOR)
        return model

    loss, found = gradients(projector_alone(), [batch_of(2, images=False)])
    assert loss > 0
    assert found == {}
    _, beside = gradients(projector_alone(), [batch_of(2, images=False), batch_of(2)])
    assert beside
    assert all(name.startswith("image_model.projection") for name in beside)


def test_half_precision_is_computed_in_and_gradients_stay_in_float32() -> None:
    batch = batch_of(4)
    exact, expected = gradients(model_of(), [batch])
    loss, found = gradients(model_of(), [batch], half=torch.bfloat16)
    assert loss != exact
    assert loss == pytest.approx(exact, rel=0.02)
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    assert found.keys() == expected.keys()


def test_tokens_are_counted_without_padding_and_with_images() -> None:
    padding = torch.zeros(2, 12, dtype=torch.int32)
    padding[1, 7:] = 1
    assert tokens([batch_of(2)._replace(key_padding_mask=padding)]) == 12 + 7
    assert tokens([batch_of(2)._replace(key_padding_mask=padding), batch_of(3)]) == 12 + 7 + 3 * 12


def test_parts_are_all_of_a_batch() -> None:
    batch = batch_of(5)._replace(key_padding_mask=torch.zeros(5, 12))
    cut = list(parts(batch, 2))
    assert [len(each.text_input_ids) for each in cut] == [2, 2, 1]
    fields = {field: whole for field, whole in batch._asdict().items() if whole is not None}
    assert len(fields) == 7
    for field, whole in fields.items():
        assert torch.equal(torch.cat([getattr(each, field) for each in cut]), whole), field
    assert [each.image_data for each in parts(batch_of(5, images=False), 2)] == [None] * 3
    assert [each is batch for each in parts(batch, None)] == [True]


def padded(lengths: list[int]) -> Batch:
    """A batch of texts of different lengths, none of whose padding counts; the last has no image, which 12 says."""
    batch = batch_of(len(lengths))
    padding = (torch.arange(12) >= torch.tensor(lengths)[:, None]).int()
    mask = torch.ones(len(lengths), 12) * (1 - padding)
    assert batch.image_data_loc is not None
    places = batch.image_data_loc.clone()
    places[-1] = 12
    return batch._replace(loss_mask=mask, key_padding_mask=padding, image_data_loc=places)


def test_texts_of_one_length_go_together_and_are_cut_to_it() -> None:
    batch = padded([6, 12, 7, 11, 9])
    cut = list(parts(batch, 2))
    assert [tuple(each.text_input_ids.shape) for each in cut] == [(2, 12), (2, 9), (1, 6)]
    for each, numbers, length in zip(cut, ([1, 3], [4, 2], [0]), (12, 9, 6), strict=True):
        for field in ("text_input_ids", "token_modality_idx", "labels", "loss_mask", "key_padding_mask"):
            assert torch.equal(getattr(each, field), getattr(batch, field)[numbers, :length]), field
        assert batch.image_data is not None
        assert each.image_data is not None
        assert torch.equal(each.image_data, batch.image_data[numbers])
    assert cut[1].image_data_loc is not None
    assert cut[1].image_data_loc.tolist() == [[[9, 9, 9, 9]], [[1, 2, 3, 4]]]


def test_parts_that_are_cut_have_the_gradients_of_the_whole() -> None:
    batch = padded([6, 12, 7, 11, 9])
    whole, expected = gradients(model_of(), [batch])
    for size in (1, 2, 3):
        loss, found = gradients(model_of(), [batch], size=size)
        assert loss == pytest.approx(whole, rel=1e-6)
        assert all(apart(found[name], gradient) < FLOAT32 for name, gradient in expected.items())
