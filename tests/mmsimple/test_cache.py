"""What is computed piece by piece with a cache is what is computed at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mmsimple.cache import KeyValueCache, LayerCache
from mmsimple.config import LlamaConfig
from mmsimple.llama import LlamaModel
from tests.mmsimple.small import DECODER, FLOAT32, apart, drawn, random, token_ids

LENGTH = 20
WINDOW = replace(DECODER, attention_sliding_window_length=6)
CONFIGS = {
    "grouped": DECODER,
    "window": WINDOW,
    "yarn": replace(
        DECODER,
        pos_scaling_type="yarn",
        pos_scaling_factor=4.0,
        pos_scaling_extra_args={"original_max_position_embeddings": 16},
    ),
    "experts": replace(DECODER, static_dual_expert=True),
}


@torch.inference_mode()
def piecewise(model: LlamaModel, ids: Tensor, modality: Tensor, pieces: list[int]) -> Tensor:
    cache = KeyValueCache(model.config.num_hidden_layers, LENGTH)
    found = []
    for number, part in enumerate(torch.split(ids, pieces, dim=1)):
        found.append(model.decode(model.embed(part), torch.split(modality, pieces, dim=1)[number], cache))
        assert cache.length == sum(pieces[: number + 1])
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("pieces", [[5] + [1] * 15, [20], [1] * 20, [3, 4, 13], [7, 1, 12]], ids=str)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_pieces_are_what_the_whole_is(config: LlamaConfig, pieces: list[int]) -> None:
    model = drawn(LlamaModel(config))
    ids = token_ids(2, LENGTH)
    modality = (torch.arange(LENGTH) % 3 == 0).long().expand(2, -1)
    with torch.inference_mode():
        whole = model.decode(model.embed(ids), modality)
    assert apart(piecewise(model, ids, modality, pieces), whole) < FLOAT32


def test_a_layer_gives_all_that_it_was_given_in_order() -> None:
    cache, keys, values = LayerCache(5), random(2, 3, 4, 6), random(2, 3, 4, 6, seed=1)
    for start, end in ((0, 2), (2, 3), (3, 4)):
        found = cache.extended(keys[:, :, start:end], values[:, :, start:end])
        assert torch.equal(found[0], keys[:, :, :end])
        assert torch.equal(found[1], values[:, :, :end])
    assert cache.length == 4


def test_memory_is_taken_once() -> None:
    cache, one = LayerCache(5), random(1, 1, 1, 4)
    places = {cache.extended(one, one)[0].data_ptr() for _ in range(5)}
    assert len(places) == 1
