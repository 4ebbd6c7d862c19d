"""LLaVA of transformers, carried across by a conversion, gives the same logits in mmsimple."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmsimple.model import Batch, MultimodalModel
from tests.mmsimple.hugging_face import IMAGE_ID, llava_to_cs, random_llava, undo_rotary_rows
from tests.mmsimple.small import BFLOAT16, FLOAT32, apart, random, token_ids

LENGTH = 24
SLOTS = 2
# Where the images of each sample begin.
PLACES: dict[str, list[list[int]]] = {
    "one-image": [[3], [7]],
    "two-interleaved": [[2, 13], [0, 20]],
    "none": [[], []],
    "two-and-one-and-none": [[5, 11], [9], []],
}


def batch_of(places: list[list[int]], tokens: int) -> Batch:
    """Random text and pictures; slots without image come after those with one."""
    positions = torch.full((len(places), SLOTS, tokens), LENGTH)
    for sample, starts in enumerate(places):
        for slot, start in enumerate(starts):
            positions[sample, slot] = torch.arange(start, start + tokens)
    ids = token_ids(len(places), LENGTH, IMAGE_ID)
    return Batch(ids, random(len(places), SLOTS, 3, 28, 28), positions)


def their_logits(model: Any, batch: Batch) -> Tensor:
    """transformers takes the images in a row, and an id at each position of theirs."""
    assert batch.image_data is not None
    assert batch.image_data_loc is not None
    ids = batch.text_input_ids.clone()
    for sample, positions in enumerate(batch.image_data_loc.flatten(1)):
        ids[sample, positions[positions < LENGTH]] = IMAGE_ID
    images = batch.image_data[batch.image_data_loc[..., 0] < LENGTH]
    with torch.inference_mode():
        out: Tensor = model(input_ids=ids, pixel_values=images if len(images) else None).logits
    return out


def our_logits(model: MultimodalModel, batch: Batch) -> Tensor:
    with torch.inference_mode():
        out: Tensor = model(batch)
    return out


@pytest.fixture(scope="module")
def theirs() -> Any:
    return random_llava()


@pytest.fixture(scope="module")
def cs(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava_to_cs(theirs, tmp_path_factory.mktemp("llava"))


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES.keys())
def test_images_anywhere_give_the_same_logits(places: list[list[int]], theirs: Any, cs: Path) -> None:
    ours = MultimodalModel.from_checkpoint(cs)
    batch = batch_of(places, ours.tokens_per_image)
    assert apart(our_logits(ours, batch), their_logits(theirs, batch)) < FLOAT32


@pytest.mark.parametrize(("layer", "strategy"), [(-1, "default"), (2, "default"), (-2, "full"), (1, "full")])
def test_every_layer_with_and_without_class_token_gives_the_same_logits(
    layer: int, strategy: str, tmp_path: Path
) -> None:
    theirs = random_llava(layer, strategy)
    ours = MultimodalModel.from_checkpoint(llava_to_cs(theirs, tmp_path))
    assert ours.tokens_per_image == (4 if strategy == "default" else 5)
    batch = batch_of([[3, 12]], ours.tokens_per_image)
    assert apart(our_logits(ours, batch), their_logits(theirs, batch)) < FLOAT32


def test_both_in_bfloat16_differ_by_roundings_alone(tmp_path: Path) -> None:
    theirs = random_llava().to(torch.bfloat16)
    folder = llava_to_cs(theirs, tmp_path)
    ours = MultimodalModel.from_checkpoint(folder, dtype=torch.bfloat16)
    batch = batch_of(PLACES["two-and-one-and-none"], ours.tokens_per_image)
    found, expected = our_logits(ours, batch), their_logits(theirs, batch)
    assert (found.dtype, expected.dtype) == (torch.bfloat16, torch.bfloat16)
    assert apart(found, expected) < BFLOAT16


def test_what_the_conversion_reorders_shows_at_once_if_it_is_not(theirs: Any, cs: Path) -> None:
    batch = batch_of(PLACES["one-image"], 4)
    expected = their_logits(theirs, batch)
    unpermuted, unrolled = MultimodalModel.from_checkpoint(cs), MultimodalModel.from_checkpoint(cs)
    undo_rotary_rows(unpermuted.text_model)
    table = unrolled.get_parameter("image_model.image_model_list.0.0.embedding_layer.position_embeddings.weight")
    with torch.no_grad():
        table.copy_(table.roll(1, dims=0))
    for wrong in (unpermuted, unrolled):
        assert apart(our_logits(wrong, batch), expected) > 1000 * FLOAT32
