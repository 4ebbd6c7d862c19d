"""Several encoders, several pictures, anywhere or nowhere: the model against a reference that knows no batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mmsimple.config import AveragePoolingConfig, FeedForwardConfig, ImageModelConfig, MultimodalConfig
from mmsimple.model import Batch, MultimodalModel, features_per_image
from tests.mmsimple.reference import image_features, multimodal
from tests.mmsimple.small import DECODER, FLOAT32, MULTIMODAL, VIT, apart, drawn, random, token_ids

LENGTH = 44
# Higher than wide, so that rows are not columns.
SIZE = (28, 42)
COARSE = replace(VIT, image_size=SIZE, nonlinearity="quick_gelu", layer_norm_epsilon=1e-3)
FINE = replace(
    VIT,
    image_size=SIZE,
    patch_size=(14, 7),
    hidden_size=24,
    filter_size=40,
    num_heads=2,
    image_layer_idx=None,
    use_embed_proj_bias=False,
    use_post_embed_layer_norm=False,
)
TWO_ENCODERS = MultimodalConfig(
    image_models=(
        ImageModelConfig(COARSE, FeedForwardConfig(32, (24,), ("gelu",), (0.0,), use_bias=True)),
        ImageModelConfig(FINE),
    ),
    text_model=DECODER,
    projection=FeedForwardConfig(24, (30, 48), ("gelu", None), (0.0, 0.0), use_bias=True),
)
TOKENS = 6 + 12


def places(*slots: range | list[int]) -> Tensor:
    return torch.tensor([list(each) for each in slots])


EMPTY = [LENGTH] * TOKENS
BATCH = Batch(
    text_input_ids=token_ids(4, LENGTH),
    image_data=random(4, 2, 3, *SIZE),
    image_data_loc=torch.stack(
        [
            # Two pictures with text before, between and after them.
            places(range(2, 2 + TOKENS), range(23, 23 + TOKENS)),
            # No picture at all.
            places(EMPTY, EMPTY),
            # An empty slot before one that is not.
            places(EMPTY, range(TOKENS)),
            # One that is scattered, backwards, and one whose end was cut off.
            places(list(range(2 * TOKENS, 0, -2)), [*range(38, LENGTH), *[LENGTH] * (TOKENS - 6)]),
        ]
    ),
)
REAL = 5


def logits(model: MultimodalModel, batch: Batch) -> Tensor:
    with torch.inference_mode():
        out: Tensor = model(batch)
    return out


def images_seen(model: MultimodalModel) -> list[list[int]]:
    """For every encoder, how many pictures each call of it has got."""
    seen: list[list[int]] = []
    for encoder, *_ in map(nn.Module.children, model.image_model.image_model_list):
        calls: list[int] = []
        encoder.register_forward_pre_hook(lambda _, given, calls=calls: calls.append(len(given[0])))
        seen.append(calls)
    return seen


@pytest.fixture
def model() -> MultimodalModel:
    return drawn(MultimodalModel(TWO_ENCODERS))


@torch.no_grad()
def test_two_encoders_and_several_images_are_what_a_loop_makes_of_them(model: MultimodalModel) -> None:
    expected = multimodal(model.state_dict(), TWO_ENCODERS, BATCH)
    assert apart(logits(model, BATCH), expected) < FLOAT32


@torch.no_grad()
@pytest.mark.parametrize("select", ["patch", "full"])
def test_encoders_stand_one_after_the_other(select: str) -> None:
    config = replace(TWO_ENCODERS, select=select)  # type: ignore[arg-type]
    model = drawn(MultimodalModel(config))
    assert model.tokens_per_image == (TOKENS if select == "patch" else TOKENS + 2)
    images = random(2, 3, *SIZE)
    expected = torch.stack([image_features(model.state_dict(), config, image) for image in images])
    found = model.image_model(images)
    assert found.shape == (2, model.tokens_per_image, DECODER.hidden_size)
    assert apart(found, expected) < FLOAT32


@torch.no_grad()
def test_features_that_were_made_before_stand_in_for_images(model: MultimodalModel) -> None:
    """In one row, of encoders whose tokens are of different widths and numbers."""
    assert BATCH.image_data is not None
    encoded = model.image_model.encode(BATCH.image_data.flatten(0, 1))
    assert [tuple(each.shape[1:]) for each in encoded] == [(6, 32), (12, 24)]
    rows = torch.cat([each.flatten(1) for each in encoded], 1)
    assert rows.shape[1] == features_per_image(TWO_ENCODERS)
    kept = BATCH._replace(image_data=None, image_features=rows.reshape(4, 2, -1))
    assert apart(logits(model, kept), logits(model, BATCH)) < FLOAT32


def test_features_of_another_length_are_refused(model: MultimodalModel) -> None:
    kept = BATCH._replace(image_data=None, image_features=torch.zeros(4, 2, 479))
    with pytest.raises(ValueError, match=r"image_features is \(4, 2, 479\), but must be \(4, 2, 480\)"):
        logits(model, kept)


@torch.no_grad()
def test_dual_experts_follow_the_modality_of_each_token() -> None:
    config = replace(TWO_ENCODERS, text_model=replace(DECODER, static_dual_expert=True, num_hidden_layers=1))
    model = drawn(MultimodalModel(config))
    modality = torch.zeros(4, LENGTH + 1, dtype=torch.int64)
    assert BATCH.image_data_loc is not None
    modality.scatter_(1, BATCH.image_data_loc.flatten(1), 1)
    batch = BATCH._replace(token_modality_idx=modality[:, :LENGTH])
    assert apart(logits(model, batch), multimodal(model.state_dict(), config, batch)) < FLOAT32


def test_dual_experts_without_a_modality_are_refused() -> None:
    config = replace(TWO_ENCODERS, text_model=replace(DECODER, static_dual_expert=True))
    with pytest.raises(ValueError, match="token_modality_idx is missing"):
        logits(MultimodalModel(config), BATCH)


def test_only_images_that_are_there_are_encoded(model: MultimodalModel) -> None:
    assert BATCH.image_data is not None
    assert BATCH.image_data_loc is not None
    seen = images_seen(model)
    empty = (BATCH.image_data_loc == LENGTH).all(-1)
    poisoned = BATCH.image_data.masked_fill(empty[..., None, None, None], float("nan"))
    found = logits(model, BATCH._replace(image_data=poisoned))
    assert seen == [[REAL], [REAL]]
    assert torch.equal(found, logits(model, BATCH))


@pytest.mark.parametrize("slots", [None, 0, 2])
def test_a_batch_of_text_calls_no_encoder(slots: int | None, model: MultimodalModel) -> None:
    seen = images_seen(model)
    batch = BATCH._replace(image_data=None, image_data_loc=None)
    if slots is not None:
        positions = torch.full((4, slots, TOKENS), LENGTH)
        batch = BATCH._replace(image_data=random(4, slots, 3, *SIZE), image_data_loc=positions)
    found = logits(model, batch)
    assert seen == [[], []]
    with torch.inference_mode():
        assert torch.equal(found, model.text_model(batch.text_input_ids))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_data": None}, "image_data_loc is given, but image_data is missing"),
        ({"image_data_loc": None}, "image_data is given, but image_data_loc is missing"),
        ({"image_data_loc": places(range(18))}, r"image_data_loc is \(1, 18\), but must be \(4, I, 18\)"),
        *(
            (
                {"image_data_loc": torch.zeros(shape, dtype=torch.int64)},
                rf"image_data_loc is .* must be \(4, I, {TOKENS}\)",
            )
            for shape in [(4, 2, 17), (4, 2, 19), (1, 2, 18), (5, 2, 18), (4, 2, 1, 18), (18,)]
        ),
        *(
            (
                {"image_data": torch.zeros(shape)},
                r"image_data is .*, but must be \(4, 2, 3, 28, 42\) beside such an image",
            )
            for shape in [(4, 2, 1, 28, 42), (4, 2, 3, 42, 28), (4, 1, 3, 28, 42), (2, 4, 3, 28, 42), (4, 3, 28, 42)]
        ),
    ],
)
def test_images_whose_shapes_do_not_fit_are_refused(changes: dict[str, Tensor | None], said: str) -> None:
    """A device that holds no values shows that none is looked at."""
    with torch.device("meta"):
        model = MultimodalModel(TWO_ENCODERS)
    batch = Batch(*(None if each is None else each.to("meta") for each in BATCH._replace(**changes)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"^{said}"):
        model(batch)


def test_what_stands_at_image_positions_in_the_text_does_not_matter(model: MultimodalModel) -> None:
    assert BATCH.image_data_loc is not None
    ids = torch.nn.functional.pad(BATCH.text_input_ids, (0, 1))
    ids.scatter_(1, BATCH.image_data_loc.flatten(1), 7)
    assert torch.equal(logits(model, BATCH._replace(text_input_ids=ids[:, :LENGTH])), logits(model, BATCH))


def test_samples_do_not_see_each_other(model: MultimodalModel) -> None:
    whole = logits(model, BATCH)
    for sample in range(4):
        alone = Batch(*(None if each is None else each[sample : sample + 1] for each in BATCH))  # type: ignore[arg-type]
        assert apart(logits(model, alone)[0], whole[sample]) < FLOAT32


def test_positions_may_be_of_any_integer_type(model: MultimodalModel) -> None:
    assert BATCH.image_data_loc is not None
    narrow = BATCH._replace(image_data_loc=BATCH.image_data_loc.to(torch.int32))
    assert torch.equal(logits(model, narrow), logits(model, BATCH))


def test_encoder_and_decoder_may_have_different_element_types() -> None:
    model = drawn(MultimodalModel(MULTIMODAL))
    model.text_model.to(torch.bfloat16)
    positions = torch.arange(4).expand(2, 1, 4)
    found = logits(model, Batch(token_ids(2, 9), random(2, 1, 3, 28, 28), positions))
    assert found.dtype == torch.bfloat16


def test_gradients_reach_every_part(model: MultimodalModel) -> None:
    torch.autograd.backward(model(BATCH).square().mean())
    names = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    last = "image_model.image_model_list.0.0.encoder.transformer_encoder."
    # The first encoder stops before its last layer, and has no use for the norm after it.
    assert {name for name in names if not name.startswith((f"{last}layers.2.", f"{last}norm."))} == set()
    assert names


def test_pooled_images_take_fewer_positions() -> None:
    pooling = AveragePoolingConfig(32, 48, (1, 2))
    config = replace(MULTIMODAL, projection=pooling)
    model = drawn(MultimodalModel(config))
    assert model.tokens_per_image == 2
    assert model.image_model(random(3, 3, 28, 28)).shape == (3, 2, 48)
    own = replace(MULTIMODAL, image_models=(ImageModelConfig(VIT, pooling),), projection=None)
    assert MultimodalModel(own).tokens_per_image == 2
