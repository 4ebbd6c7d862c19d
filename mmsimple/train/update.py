"""The gradients of one update: of several batches, in parts that fit in memory, weighed as if all were one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from mmsimple.loss import divisor
from mmsimple.model import Batch, MultimodalModel
from mmsimple.train.fitting import check_tokens

# The fields of a batch that are [B, S].
TEXTS = ("text_input_ids", "token_modality_idx", "labels", "loss_mask", "key_padding_mask")


def parts(batch: Batch, size: int | None) -> Iterator[Batch]:
    """A batch, so many samples at a time; None: all at once.

    Texts of about the same length go together, the longest first, and each part is cut to its longest: what is cut off
    is padding, which changes nothing but costs as much as text.
    """
    count, width = batch.text_input_ids.shape
    if size is None or size >= count:
        yield batch
        return
    padding = batch.key_padding_mask
    lengths = torch.full((count,), width) if padding is None else (padding == 0).sum(1)  # [B]
    for numbers in torch.split(lengths.argsort(descending=True, stable=True), size):
        yield _cut(_each(batch, itemgetter(numbers)), int(lengths[numbers].max()))


def on_device(batch: Batch, device: torch.device) -> Batch:
    return _each(batch, lambda tensor: tensor.to(device))


def accumulate(
    model: MultimodalModel,
    batches: Sequence[Batch],
    backward: Callable[[Tensor], None],
    *,
    micro_batch_size: int | None,
    device: torch.device,
    half: torch.dtype | None,
) -> float:
    """Add up the gradients of all batches and give their loss, which is that of one batch of all their samples.

    `backward` is what becomes of the loss of a part; one without a gradient, such as that of texts where only a
    projector trains, is passed over. `half` is what is computed in where that is not float32. Raises NothingToLearn
    where no token of any batch counts, and InputRefused for tokens that the model lacks.
    """
    whole = sum(divisor(_mask(batch), model.config.loss_scaling) for batch in batches)
    total = 0.0
    for batch in batches:
        check_tokens(batch, model.config)
        for part in parts(batch, micro_batch_size):
            with torch.autocast(device.type, half, enabled=half is not None):
                loss = model.loss(on_device(part, device), whole)
            if loss.requires_grad:
                backward(loss)
            total += loss.item()
    return total


def tokens(batches: Sequence[Batch]) -> int:
    """How many positions are no padding, image tokens included; where a batch does not say, all of them."""
    return sum(
        batch.text_input_ids.numel() if batch.key_padding_mask is None else int((batch.key_padding_mask == 0).sum())
        for batch in batches
    )


def learned_tokens(batches: Sequence[Batch]) -> int:
    """How many tokens count in the loss."""
    return sum(int((_mask(batch) != 0).sum()) for batch in batches)


def _mask(batch: Batch) -> Tensor:
    if batch.loss_mask is None:
        raise ValueError("a loss needs a loss_mask")
    return batch.loss_mask


def _cut(batch: Batch, length: int) -> Batch:
    """A batch without the padding behind a length."""
    texts = {name: each[:, :length] for name in TEXTS if (each := getattr(batch, name)) is not None}
    positions = batch.image_data_loc
    # The slot past the end moves with the end.
    return batch._replace(image_data_loc=None if positions is None else positions.clamp(max=length), **texts)


def _each(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    values: dict[str, Any] = {name: None if each is None else change(each) for name, each in batch._asdict().items()}
    return Batch(**values)
