"""The training loss: cross entropy at the tokens that the mask weighs.

Shape letters: B samples, S positions, T tokens that count, H hidden, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mmsimple.config import LossScaling


class NothingToLearn(ValueError):
    """No token of a batch has any weight in the loss, so that its mean over tokens would be 0 / 0."""


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each token in float32: [T, V] and [T] -> [T]."""
    return F.cross_entropy(logits.float(), labels.long(), reduction="none")


def divisor(loss_mask: Tensor, scaling: LossScaling) -> float:
    """What the loss of a batch is divided by: the sum of its weights, or the number of its samples."""
    return float(loss_mask.double().sum()) if scaling == "num_tokens" else float(len(loss_mask))


def scaled(losses: Tensor, weights: Tensor, divided_by: float, scaling: LossScaling, loss_weight: float) -> Tensor:
    """The loss of a batch from those of its tokens, [T], and their weights in the mask, which need not be 1.

    It is divided by the batch's `divisor`, or that of a larger one of which it is a part; `batch_size` multiplies by
    `loss_weight` too. Raises NothingToLearn where `num_tokens` would divide by 0.
    """
    total = (losses * weights.to(losses.dtype)).sum()
    if scaling == "batch_size":
        return total / divided_by * loss_weight
    if divided_by == 0:
        raise NothingToLearn("the loss mask is 0 everywhere in this batch: there is no token to learn from")
    return total / divided_by
