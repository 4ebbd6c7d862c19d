"""Batches of the small multimodal model, with labels of which not all count."""

from __future__ import annotations

import torch

from mmsimple.model import Batch
from tests.mmsimple.small import DECODER, random, token_ids

TOKENS = 4


def batch_of(samples: int, *, seed: int = 0, length: int = 12, images: bool = True) -> Batch:
    """Samples with one image each behind their first token, and 1, 2, 3, ... tokens to learn."""
    ids = token_ids(samples, length, seed=seed)
    mask = torch.zeros(samples, length)
    for number in range(samples):
        mask[number, length - 1 - (number + seed) % 6 :] = 1
    places = torch.arange(1, 1 + TOKENS).expand(samples, 1, TOKENS)
    modality = torch.zeros(samples, length, dtype=torch.int32)
    modality[:, 1 : 1 + TOKENS] = 1
    labels = token_ids(samples, length, DECODER.vocab_size, seed=seed + 1000)
    if not images:
        return Batch(ids, labels=labels, loss_mask=mask)
    return Batch(ids, random(samples, 1, 3, 28, 28, seed=seed), places, modality, labels, mask)


def joined(batches: list[Batch]) -> Batch:
    """All samples as one batch."""
    fields = zip(*batches, strict=True)
    return Batch(*(None if each[0] is None else torch.cat(each) for each in fields))  # type: ignore[arg-type]
