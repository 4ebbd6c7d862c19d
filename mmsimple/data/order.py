"""In which order samples come: a stream without end, told by how many have come, whatever the batches are.

Epoch e of a shuffled dataset of N samples is `torch.randperm(N)` from seed `shuffle_seed + e`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

# A share of the weights; datasets with less may not come whole in an epoch of a mixture.
LEAST_WEIGHT = 0.05


class Order(Protocol):
    """Every epoch has `length` samples; `epoch(e)` are their numbers, [length], in the order in which they come."""

    length: int

    def epoch(self, number: int) -> Tensor: ...


class Plain:
    """All samples of a dataset once an epoch, shuffled anew in each or as they lie."""

    def __init__(self, length: int, seed: int | None) -> None:
        self.length, self.seed = length, seed

    def epoch(self, number: int) -> Tensor:
        if self.seed is None:
            return torch.arange(self.length)
        return torch.randperm(self.length, generator=torch.Generator().manual_seed(self.seed + number))


class Mixture:
    """Several datasets, each with its share of every epoch, as CS mixes them.

    An epoch is as long as it takes for every sample to come at least once, of datasets with more than 5 % of the
    weight; those that have fewer samples than their share come round again. Shuffled, all of it is one `Plain` stream;
    otherwise each dataset's samples come as they lie, the datasets taking turns at random.
    """

    def __init__(self, lengths: Sequence[int], weights: Sequence[float], seed: int, *, shuffle: bool) -> None:
        whole = sum(weights)
        parts = [weight / whole for weight in weights]
        # Of very many datasets none may have so much.
        least = LEAST_WEIGHT if max(parts) > LEAST_WEIGHT else 0.0
        total = max(length / part for length, part in zip(lengths, parts, strict=True) if part > least)
        shares = [int(total * part) for part in parts]
        firsts = [sum(lengths[:number]) for number in range(len(lengths))]
        samples = [
            first + np.arange(share) % length for first, share, length in zip(firsts, shares, lengths, strict=True)
        ]
        self.length = sum(shares)
        if shuffle:
            self._samples = np.concatenate(samples)
        else:
            turns = np.repeat(np.arange(len(shares)), shares)[np.random.default_rng(seed).permutation(self.length)]
            self._samples = np.empty(self.length, np.int64)
            for number, each in enumerate(samples):
                self._samples[turns == number] = each
        self._order = Plain(self.length, seed if shuffle else None)

    def epoch(self, number: int) -> Tensor:
        return torch.from_numpy(self._samples)[self._order.epoch(number)]


class Batches:
    """The numbers of the samples of each batch, epoch by epoch, from the `streamed`-th sample on.

    With `drop_last` all batches are full: what an epoch has left over begins the first batch of the next, and nothing
    is lost. Without, the last batch of an epoch is smaller. An iteration gives what is left of one epoch and leaves
    `streamed` to whoever uses the batches: what is read ahead has not been used.
    """

    def __init__(self, order: Order, batch_size: int, *, drop_last: bool) -> None:
        self.order, self.batch_size, self.drop_last = order, batch_size, drop_last
        self.streamed = 0

    @property
    def epoch(self) -> int:
        """The epoch that the next batch ends in."""
        last = self.streamed + self.batch_size - 1 if self.drop_last else self.streamed
        return last // self.order.length

    def __len__(self) -> int:
        """How many batches are left of this epoch."""
        left = (self.epoch + 1) * self.order.length - self.streamed
        return left // self.batch_size if self.drop_last else -(-left // self.batch_size)

    def in_epochs(self, count: int) -> int:
        """How many batches so many epochs have, from the first sample on."""
        if self.drop_last:
            return count * self.order.length // self.batch_size
        return count * -(-self.order.length // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        at, last = self.streamed, (self.epoch + 1) * self.order.length
        orders: dict[int, Tensor] = {}
        while at < last and (not self.drop_last or at + self.batch_size <= last):
            size = min(self.batch_size, last - at)
            batch = []
            for position in range(at, at + size):
                number, place = divmod(position, self.order.length)
                if number not in orders:
                    orders[number] = self.order.epoch(number)
                batch.append(int(orders[number][place]))
            yield batch
            at += size
