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


def scaled(losses: Tensor, weights: Tensor, batch_size: int, scaling: LossScaling, loss_weight: float) -> Tensor:
    """The loss of a batch from those of its tokens, [T], and their weights in the mask, which need not be 1.

    `num_tokens` divides by the sum of the weights; `batch_size` by the number of samples, and multiplies by
    `loss_weight`. Raises NothingToLearn where `num_tokens` would divide by 0.
    """
    total = (losses * weights.to(losses.dtype)).sum()
    if scaling == "batch_size":
        return total / batch_size * loss_weight
    count = weights.to(losses.dtype).sum()
    if count == 0:
        raise NothingToLearn("the loss mask is 0 everywhere in this batch: there is no token to learn from")
    return total / count
