"""In which order samples come: a stream without end, told by how many have come, whatever the batches are.

Epoch e of a shuffled dataset of N samples is `torch.randperm(N)` from seed `shuffle_seed + e`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor


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
    """Several datasets, each with its share of every epoch; an epoch has as many samples as they have together.

    A dataset whose share is more than it has comes round again, in another order; of one whose share is less, the next
    epoch goes on where this one stops, so that all of its samples come equally often. Samples of all of them are mixed
    at random, or evenly where nothing is shuffled.
    """

    def __init__(self, lengths: Sequence[int], weights: Sequence[float], seed: int | None) -> None:
        self.seed, self.lengths, self.length = seed, lengths, sum(lengths)
        self.shares = _shares(self.length, weights)

    def epoch(self, number: int) -> Tensor:
        parts, first = [], 0
        for length, share in zip(self.lengths, self.shares, strict=True):
            parts.append(first + self._part(length, number * share, share))
            first += length
        mixed = torch.cat(parts)
        return mixed[Plain(self.length, self.seed).epoch(number) if self.seed is not None else self._evenly()]

    def _part(self, length: int, start: int, count: int) -> Tensor:
        """`count` numbers from position `start` of one dataset's own stream."""
        order = Plain(length, self.seed)
        rounds = range(start // length, -(-(start + count) // length))
        stream = torch.cat([order.epoch(each) for each in rounds]) if count else torch.empty(0, dtype=torch.long)
        return stream[start % length : start % length + count]

    def _evenly(self) -> Tensor:
        """Where each position's sample stands in the row of all parts: sample k of n comes at (k + 1/2) / n."""
        places = torch.cat([(torch.arange(share) + 0.5) / max(1, share) for share in self.shares])
        return places.argsort(stable=True)


def _shares(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in the proportion of weights that add up to `total`; the largest remainders are rounded up."""
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [int(each) for each in exact]
    by_remainder = sorted(range(len(exact)), key=lambda at: shares[at] - exact[at])
    for at in by_remainder[: total - sum(shares)]:
        shares[at] += 1
    return shares


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
